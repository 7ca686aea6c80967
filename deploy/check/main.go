// Command check is part of the image of the gateway. It finds mistakes in the settings before Traefik starts, and tries a gateway that
// runs:
//
//	check                      checks the settings: the environment, and the dynamic files that read it
//	check exec PROGRAM ARG...  checks them, and then becomes the program
//	check smoke                proves that a running gateway limits, on the internal entry point
//	check disabled             prints what Traefik has disabled, and why
//
// It prints every problem with the name of its variable, and ends with 1 if there is one, with 2 if it is called wrongly.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	exitProblems = 1
	exitUsage    = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// options are those of the command line.
type options struct {
	static    string
	dynamic   string
	megabytes uint64
	api       string
}

func run(args []string, out, errors io.Writer) int {
	o := options{}
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	flags.SetOutput(errors)
	flags.StringVar(&o.static, "static", "/etc/traefik/traefik.yml", "the static `file` of Traefik, which may name the folder of dynamic files")
	flags.StringVar(&o.dynamic, "dynamic", "", "the `folder` of dynamic files, if the static file names none")
	flags.Uint64Var(&o.megabytes, "space", 0, "the `megabytes` that must be free where containers write")
	flags.StringVar(&o.api, "api", "http://127.0.0.1:8080", "the internal entry point of a running gateway")
	if flags.Parse(args) != nil {
		return exitUsage
	}
	var err error
	switch action := flags.Arg(0); {
	case action == "" || action == "exec" && flags.NArg() > 1:
		if problems := o.problems(); len(problems) > 0 {
			report(errors, problems)
			return exitProblems
		}
		if action == "exec" {
			err = become(flags.Args()[1:])
		}
	case action == "smoke" && flags.NArg() == 1:
		var passed string
		if passed, err = smoke(o.api+smokePath, 10*time.Second); err == nil {
			fmt.Fprintln(out, passed)
		}
	case action == "disabled" && flags.NArg() == 1:
		err = printDisabled(o.api, out)
	default:
		flags.Usage()
		return exitUsage
	}
	if err != nil {
		fmt.Fprintln(errors, "check:", err)
		return exitProblems
	}
	return 0
}

func report(to io.Writer, problems []string) {
	if len(problems) == 1 {
		fmt.Fprintln(to, "check:", problems[0])
		return
	}
	fmt.Fprintf(to, "check: %d problems\n", len(problems))
	for _, problem := range problems {
		fmt.Fprintln(to, "check:", problem)
	}
}

// become replaces this process by the program.
func become(command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	return errors.Join(errors.New("cannot start "+path), syscall.Exec(path, command, os.Environ()))
}

// problems returns everything that is wrong with the settings.
func (o options) problems() []string {
	problems := checkVariables(os.Environ())
	folder, err := o.folder()
	if err != nil {
		problems = append(problems, err.Error())
	} else if folder != "" {
		problems = append(problems, checkFolder(folder)...)
	}
	if o.megabytes > 0 {
		problems = append(problems, checkSpace("/", o.megabytes)...)
	}
	return unique(problems)
}

func unique(texts []string) (different []string) {
	seen := map[string]bool{}
	for _, text := range texts {
		if !seen[text] {
			seen[text] = true
			different = append(different, text)
		}
	}
	return different
}

// checkSpace reports a file system that has less than that free, in megabytes, or no free inode.
func checkSpace(path string, megabytes uint64) []string {
	var found syscall.Statfs_t
	if err := syscall.Statfs(path, &found); err != nil {
		return []string{fmt.Sprintf("the free space of %s cannot be read: %v", path, err)}
	}
	free := uint64(found.Bavail) * uint64(found.Bsize) >> 20
	switch {
	case free < megabytes:
		return []string{fmt.Sprintf("the disk of Docker has %d MB free, and %d MB are needed; make room, for instance with: docker system prune", free, megabytes)}
	case found.Files > 0 && found.Ffree < 1000:
		return []string{fmt.Sprintf("the disk of Docker has %d inodes free, and 1000 are needed; make room, for instance with: docker system prune", found.Ffree)}
	}
	return nil
}
