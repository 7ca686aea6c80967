package main

import (
	"fmt"
	"path/filepath"
)

// notices states what the bundle holds of others, as redigo's licence asks of those who pass on a changed copy.
const notices = `# Third-party code

This plugin contains code of others:

- ` + "`vendor/%[1]s`" + `: part of [redigo](https://%[1]s) %[2]s, under the Apache License 2.0, whose text is in
  ` + "`vendor/%[1]s/LICENSE`" + `. Only the package ` + "`redis`" + ` is here, without its tests.

  Changed: ` + "`vendor/%[1]s/redis/%[3]s`" + ` assigns a closure where redigo assigns a method, because Traefik's interpreter
  cannot assign the method. All else is as published.
`

// vendorRedigo copies redigo from Go's module cache, in the version that go.mod names, into a bundle.
func vendorRedigo(bundle string) error {
	found, err := locate(redigo)
	if err != nil {
		return err
	}
	home := filepath.Join(bundle, "vendor", redigo)
	var adaptedFiles []string
	change := func(name string, source []byte) ([]byte, error) {
		adapted, times, err := adapt(name, source)
		for ; times > 0; times-- {
			adaptedFiles = append(adaptedFiles, name)
		}
		return adapted, err
	}
	if err := copySources(filepath.Join(found.Dir, "redis"), filepath.Join(home, "redis"), change); err != nil {
		return err
	}
	if len(adaptedFiles) != 1 {
		return fmt.Errorf("redigo %s holds the construct %q %d times, not once: see whether the interpreter "+
			"still needs it rewritten", found.Version, construct, len(adaptedFiles))
	}
	if err := copyFile(filepath.Join(found.Dir, "LICENSE"), filepath.Join(home, "LICENSE"), nil); err != nil {
		return err
	}
	list := fmt.Sprintf("# %s %s\n## explicit; go %s\n%s/redis\n", redigo, found.Version, found.GoVersion, redigo)
	if err := writeFile(filepath.Join(bundle, "vendor", "modules.txt"), []byte(list)); err != nil {
		return err
	}
	text := fmt.Sprintf(notices, redigo, found.Version, adaptedFiles[0])
	return writeFile(filepath.Join(bundle, "THIRD_PARTY.md"), []byte(text))
}
