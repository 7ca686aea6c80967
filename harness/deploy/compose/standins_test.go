package compose

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Names of the stand-ins for base images, and of what they are given to.
const (
	goStandIn      = "resilience-standin/go:test"
	traefikStandIn = "resilience-standin/traefik:test"
	redisStandIn   = "resilience-standin/redis:test"
)

func standIns() []string {
	return []string{"GO_IMAGE=" + goStandIn, "TRAEFIK_IMAGE=" + traefikStandIn, "REDIS_IMAGE=" + redisStandIn}
}

// makeStandIns makes images that have of the real ones what our files rely on, from what this machine has.
func makeStandIns(scratch string) error {
	for _, standIn := range []func(scratch string) error{makeGo, makeTraefik, makeRedis} {
		if err := standIn(scratch); err != nil {
			return err
		}
	}
	return nil
}

// makeGo makes one like golang:…-alpine, but with the modules that our builds download already in its cache.
func makeGo(scratch string) error {
	goroot, err := goEnv("GOROOT")
	if err != nil {
		return err
	}
	cache := filepath.Join(scratch, "modules")
	if err := downloadModules(cache); err != nil {
		return err
	}
	changes := []string{"ENV PATH=/usr/local/go/bin:/go/bin:/usr/bin:/bin", "ENV GOPATH=/go", "ENV GOPROXY=off", "CMD sh"}
	return importImage(goStandIn, changes, func(w *image) {
		w.shell()
		w.tree(goroot, "/usr/local/go", "test", "doc", "api", "misc")
		w.tree(cache, "/go/pkg/mod")
	})
}

func goEnv(name string) (string, error) {
	out, err := exec.Command("go", "env", name).Output()
	return strings.TrimSpace(string(out)), err
}

// downloadModules fills a module cache with what the Dockerfile downloads, from this machine's own cache where it is there.
func downloadModules(cache string) error {
	own, err := goEnv("GOMODCACHE")
	if err != nil {
		return err
	}
	proxy, err := goEnv("GOPROXY")
	if err != nil {
		return err
	}
	for _, folder := range []string{".", "upstream", "deploy/check"} {
		command := exec.Command("go", "mod", "download")
		command.Dir = filepath.Join(project, folder)
		command.Env = append(os.Environ(), "GOMODCACHE="+cache, "GOFLAGS=-modcacherw",
			"GOPROXY=file://"+own+"/cache/download,"+proxy)
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("go mod download in %s: %s", folder, out)
		}
	}
	return nil
}

// makeTraefik makes one like the official image: entry point, command, no working directory.
func makeTraefik(string) error {
	const entrypoint = `#!/bin/sh
case ${1:-} in
-*) set -- traefik "$@" ;;
*) if traefik "${1:-}" --help >/dev/null 2>&1; then set -- traefik "$@"; fi ;;
esac
exec "$@"
`
	binary := filepath.Join(project, "dist", "bin", "traefik")
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("%s is missing; run: make traefik", binary)
	}
	changes := []string{
		"ENV PATH=/usr/local/bin:/usr/bin:/bin", `ENTRYPOINT ["/entrypoint.sh"]`, `CMD ["traefik"]`, "EXPOSE 80",
	}
	return importImage(traefikStandIn, changes, func(w *image) {
		w.shell()
		w.file(binary, "/usr/local/bin/traefik")
		w.bytes([]byte(entrypoint), "/entrypoint.sh", 0o755)
	})
}

// makeRedis makes one like redis:…-alpine: user 999:1000, who owns /data.
func makeRedis(string) error {
	changes := []string{
		"ENV PATH=/usr/local/bin:/usr/bin:/bin", "VOLUME /data", "WORKDIR /data", "EXPOSE 6379", `CMD ["redis-server"]`,
	}
	return importImage(redisStandIn, changes, func(w *image) {
		w.shell()
		for _, program := range []string{"redis-server", "redis-cli"} {
			path, err := exec.LookPath(program)
			if err != nil {
				w.fail(fmt.Errorf("%s is missing; install it: .ci/install redis-server", program))
				return
			}
			w.file(path, "/usr/local/bin/"+program)
			w.libraries(path)
		}
		w.header(&tar.Header{Typeflag: tar.TypeDir, Name: "data/", Mode: 0o755, Uid: 999, Gid: 1000})
	})
}

// image is a root file system that is being written. It keeps the first error.
type image struct {
	tar  *tar.Writer
	done map[string]bool
	err  error
}

func (w *image) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// importImage makes an image of what write writes.
func importImage(name string, changes []string, write func(w *image)) error {
	args := []string{"import"}
	for _, change := range changes {
		args = append(args, "--change", change)
	}
	command := exec.Command("docker", append(args, "-", name)...)
	pipe, err := command.StdinPipe()
	if err != nil {
		return err
	}
	var said strings.Builder
	command.Stdout, command.Stderr = &said, &said
	if err := command.Start(); err != nil {
		return err
	}
	w := &image{tar: tar.NewWriter(pipe), done: map[string]bool{}}
	w.header(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777})
	write(w)
	w.fail(w.tar.Close())
	pipe.Close()
	if err := command.Wait(); err != nil {
		return fmt.Errorf("docker import %s: %s", name, errors.Join(errors.New(said.String()), w.err))
	}
	return w.err
}

func (w *image) header(h *tar.Header) {
	if w.err == nil && !w.done[h.Name] {
		w.done[h.Name] = true
		w.fail(w.tar.WriteHeader(h))
	}
}

func (w *image) bytes(content []byte, to string, mode int64) {
	w.header(&tar.Header{Name: strings.TrimPrefix(to, "/"), Mode: mode, Size: int64(len(content))})
	if w.err == nil {
		_, err := w.tar.Write(content)
		w.fail(err)
	}
}

// file copies a file, whose links are followed.
func (w *image) file(from, to string) {
	if w.err != nil || w.done[strings.TrimPrefix(to, "/")] {
		return
	}
	file, err := os.Open(from)
	if err != nil {
		w.fail(err)
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		w.fail(err)
		return
	}
	w.header(&tar.Header{Name: strings.TrimPrefix(to, "/"), Mode: int64(info.Mode().Perm()) | 0o444, Size: info.Size()})
	if w.err == nil {
		_, err = io.Copy(w.tar, file)
		w.fail(err)
	}
}

// tree copies a folder but for some of the folders in it.
func (w *image) tree(from, to string, without ...string) {
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || w.err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			for _, name := range without {
				if relative == name {
					return fs.SkipDir
				}
			}
			return nil
		}
		w.file(path, filepath.Join(to, relative))
		return nil
	})
	if err != nil {
		w.fail(err)
	}
}

// shell is what an alpine image has of it, as far as our files and the stand-ins use it.
func (w *image) shell() {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		w.fail(errors.New("busybox is missing; install it: .ci/install busybox-static"))
		return
	}
	w.file(busybox, "/bin/busybox")
	w.libraries(busybox)
	for _, name := range []string{"sh", "cat", "cp", "cut", "grep", "hostname", "sed", "sha256sum", "touch", "timeout", "sleep", "wget"} {
		w.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777})
	}
}

// libraries copies the shared libraries that a program loads; a static one loads none.
func (w *image) libraries(program string) {
	out, err := exec.Command("ldd", program).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "not a dynamic executable") {
		w.fail(fmt.Errorf("ldd %s: %s", program, out))
		return
	}
	for _, field := range strings.Fields(string(out)) {
		if strings.HasPrefix(field, "/") && !strings.HasSuffix(field, ":") {
			w.file(field, field)
		}
	}
}

// removeImages removes the images that the tests made, on an engine that keeps running.
func removeImages() error {
	out, err := exec.Command("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").Output()
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(out)) {
		for _, ours := range []string{
			"resilience-test-", "resilience-standin/", "resilience-gateway:local", "resilience-gateway-2:local", "resilience-upstream:local", "resilience-tests:local",
		} {
			if strings.HasPrefix(name, ours) {
				exec.Command("docker", "image", "rm", "--force", name).Run()
			}
		}
	}
	return nil
}
