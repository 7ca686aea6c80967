// Command bundle writes the complete plugin, as Traefik loads it, below the folder that its argument names:
// plugins-local/src/github.com/resilient-gateway/resilience, with redigo vendored and adapted to the interpreter. A release
// tags the same tree.
//
// It runs in the root of the module. -ref names the commit that the README's links point to, -version the release that the plugin says it is.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/resilient-gateway/resilience/internal/pluginfolders"
)

const (
	module = "github.com/resilient-gateway/resilience"
	redigo = "github.com/gomodule/redigo"
)

// files belong to the plugin in addition to its packages.
var files = []string{".traefik.yml", ".assets/icon.png"}

func main() {
	ref := flag.String("ref", "HEAD", "the commit that the README's links point to")
	version := flag.String("version", "", "the release, such as v1.2.3; anything else is none")
	flag.Usage = func() { fmt.Fprintln(os.Stderr, "usage: bundle [-ref COMMIT] [-version VERSION] FOLDER") }
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	target := filepath.Join(flag.Arg(0), "plugins-local", "src", module)
	if err := write(target, *ref, *version); err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
	fmt.Println(target)
}

// write writes the tree to a temporary folder and then renames it: the target is never half written.
func write(target, ref, version string) error {
	fresh := target + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	folders, err := pluginfolders.Of(".")
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if err := copySources(folder, filepath.Join(fresh, folder), withVersion(version)); err != nil {
			return err
		}
	}
	for _, file := range files {
		if err := copyFile(file, filepath.Join(fresh, file), nil); err != nil {
			return err
		}
	}
	if err := writeModule(fresh); err != nil {
		return err
	}
	if err := vendorRedigo(fresh); err != nil {
		return err
	}
	absolute := func(_ string, readme []byte) ([]byte, error) { return absoluteLinks(readme, ref), nil }
	if err := copyFile("README.md", filepath.Join(fresh, "README.md"), absolute); err != nil {
		return err
	}
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	return os.Rename(fresh, target)
}
