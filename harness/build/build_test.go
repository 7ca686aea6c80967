package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	archiveURL  = "/v3.7.9/traefik_v3.7.9_linux_amd64.tar.gz"
	checksumURL = "/v3.7.9/traefik_v3.7.9_checksums.txt"
)

// traefik returns a program that tells a version as Traefik does.
func traefik(version string) string {
	return "#!/bin/sh\n[ \"$1\" = version ] && printf 'Version:      " + version + "\\nCodename:     test\\n'\n"
}

// site stands for the release site.
type site struct {
	archive   []byte
	checksums string
	serve     func(w http.ResponseWriter, r *http.Request, archive []byte) // the archive; nil: as it is
}

func (s *site) start(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == checksumURL && s.checksums != "":
			io.WriteString(w, s.checksums)
		case r.URL.Path == archiveURL && s.serve != nil:
			s.serve(w, r, s.archive)
		case r.URL.Path == archiveURL && s.archive != nil:
			w.Write(s.archive)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// released is a site with an archive of this binary, and the right checksum of it.
func released(t *testing.T, binary string) *site {
	archive := packTar(t, map[string]string{"CHANGELOG.md": "changes", "LICENSE.md": "MIT", "traefik": binary})
	return &site{archive: archive, checksums: checksums(archive)}
}

func checksums(archive []byte) string {
	return fmt.Sprintf("%064d  traefik_v3.7.9_darwin_arm64.tar.gz\n%x  traefik_v3.7.9_linux_amd64.tar.gz\n", 7, sha256.Sum256(archive))
}

func packTar(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var packed bytes.Buffer
	compressed := gzip.NewWriter(&packed)
	entries := tar.NewWriter(compressed)
	for name, content := range files {
		require.NoError(t, entries.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}))
		_, err := io.WriteString(entries, content)
		require.NoError(t, err)
	}
	require.NoError(t, entries.Close())
	require.NoError(t, compressed.Close())
	return packed.Bytes()
}

// hasty are the limits of a test: a site that answers does so within them on a busy machine too.
var hasty = limits{connect: 2 * time.Second, stall: 2 * time.Second, judge: time.Second, total: 20 * time.Second, bytes: 1 << 20}

// newProvider returns one that says what it says to the returned text, and whose build takes no time.
func newProvider(t *testing.T, site string) (*provider, *strings.Builder) {
	t.Helper()
	said := &strings.Builder{}
	return &provider{
		target:  filepath.Join(t.TempDir(), "bin", "traefik"),
		release: &release{site: site, system: "linux", machine: "amd64", limits: hasty},
		compile: func(_ context.Context, target string, _ io.Writer) error {
			return os.WriteFile(target, []byte(traefik("3.7.9")), 0o755)
		},
		out: said,
	}, said
}

// unreachable is a site that refuses connections.
func unreachable(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return "http://" + listener.Addr().String()
}

// files returns the names of what is next to the target.
func files(t *testing.T, target string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(target))
	require.NoError(t, err)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestRelease_isTakenIfItIsRight(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(t *testing.T, s *site)
		why    string // of the build; "": there is none
	}{
		{"good", func(*testing.T, *site) {}, ""},
		{"good, and its version has a v", func(t *testing.T, s *site) { *s = *released(t, traefik("v3.7.9")) }, ""},
		{"good, and the list names files with a path", func(_ *testing.T, s *site) {
			s.checksums = strings.ReplaceAll(s.checksums, "  traefik", " *./traefik")
		}, ""},
		{"no list of checksums", func(_ *testing.T, s *site) { s.checksums = "" }, checksumURL + " answers 404 Not Found"},
		{"no archive", func(_ *testing.T, s *site) { s.archive = nil }, archiveURL + " answers 404 Not Found"},
		{"no archive for this system", func(_ *testing.T, s *site) {
			s.checksums = strings.ReplaceAll(s.checksums, "linux_amd64", "linux_riscv64")
		}, checksumURL + " names no traefik_v3.7.9_linux_amd64.tar.gz"},
		{"wrong checksum", func(_ *testing.T, s *site) { s.archive = append(s.archive, 0) }, archiveURL + " has the checksum "},
		{"cut off", func(_ *testing.T, s *site) {
			s.serve = func(w http.ResponseWriter, _ *http.Request, archive []byte) {
				w.Header().Set("Content-Length", fmt.Sprint(len(archive)))
				w.Write(archive[:len(archive)/2])
			}
		}, archiveURL + " breaks off: unexpected EOF"},
		{"cut off without a word", func(_ *testing.T, s *site) {
			s.serve = func(w http.ResponseWriter, _ *http.Request, archive []byte) {
				w.(http.Flusher).Flush()
				w.Write(archive[:len(archive)/2])
			}
		}, archiveURL + " has the checksum "},
		{"an error in its middle", func(_ *testing.T, s *site) {
			s.serve = func(w http.ResponseWriter, _ *http.Request, archive []byte) {
				w.Write(archive[:len(archive)/2])
				panic(http.ErrAbortHandler)
			}
		}, archiveURL},
		{"no archive, but a page", func(_ *testing.T, s *site) {
			s.archive = []byte("<html>log in</html>")
			s.checksums = checksums(s.archive)
		}, archiveURL + ": gzip: invalid header"},
		{"no binary in it", func(t *testing.T, s *site) {
			s.archive = packTar(t, map[string]string{"README.md": "nothing"})
			s.checksums = checksums(s.archive)
		}, archiveURL + ": it holds no traefik"},
		{"another version", func(t *testing.T, s *site) { *s = *released(t, traefik("3.7.90")) }, archiveURL + " is no use: the binary is Traefik v3.7.90, not v3.7.9"},
		{"another system", func(t *testing.T, s *site) { *s = *released(t, "\x7fELF\x02\x01\x01 of another machine") }, archiveURL + " is no use: the binary does not run here: "},
		{"another program", func(t *testing.T, s *site) { *s = *released(t, "#!/bin/sh\necho hello\n") }, archiveURL + " is no use: the binary is no Traefik"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := released(t, traefik("3.7.9"))
			row.change(t, s)
			p, said := newProvider(t, s.start(t))
			require.NoError(t, p.provide(context.Background()))
			require.NoError(t, checkVersion(p.target))
			require.Equal(t, []string{"traefik", "traefik.origin"}, files(t, p.target), "nothing is left over")
			if row.why == "" {
				require.Equal(t, "Traefik v3.7.9: the release, "+p.release.site+archiveURL+"\n", said.String())
				return
			}
			require.Contains(t, said.String(), "Traefik v3.7.9: is built now, because "+p.release.site)
			require.Contains(t, said.String(), row.why)
			require.Equal(t, 2, strings.Count(said.String(), "\n"), "one line says why, one what it is: %s", said)
			require.Regexp(t, "Traefik v3.7.9: built here with go[0-9.]+", said.String())
		})
	}
}

// A site that takes longer than a build does is given up in time.
func TestRelease_isGivenUpIfItIsSlow(t *testing.T) {
	silence := make(chan struct{})
	t.Cleanup(func() { close(silence) })
	wait := func(r *http.Request) {
		select {
		case <-silence:
		case <-r.Context().Done():
		}
	}
	for _, row := range []struct {
		name  string
		serve func(w http.ResponseWriter, r *http.Request, archive []byte)
		why   string
	}{
		{"no answer", func(_ http.ResponseWriter, r *http.Request, _ []byte) { wait(r) }, "cannot be reached: "},
		{"silence in the middle", func(w http.ResponseWriter, r *http.Request, archive []byte) {
			w.Write(archive[:10])
			w.(http.Flusher).Flush()
			wait(r)
		}, "breaks off: nothing arrives for 2s"},
		{"a trickle", func(w http.ResponseWriter, r *http.Request, archive []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(archive)))
			for i := range archive {
				w.Write(archive[i : i+1])
				if w.(http.Flusher).Flush(); r.Context().Err() != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, "breaks off: it would take longer than 20s"},
		{"a trickle of unknown length", func(w http.ResponseWriter, r *http.Request, _ []byte) {
			for r.Context().Err() == nil {
				io.WriteString(w, "x")
				w.(http.Flusher).Flush()
				time.Sleep(100 * time.Millisecond)
			}
		}, "breaks off: it would take longer than 3s"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := released(t, traefik("3.7.9"))
			s.serve = row.serve
			p, said := newProvider(t, s.start(t))
			if strings.Contains(row.why, " 3s") {
				p.release.limits.total = 3 * time.Second
			}
			begun := time.Now()
			require.NoError(t, p.provide(context.Background()))
			require.Less(t, time.Since(begun), 15*time.Second)
			require.Contains(t, said.String(), p.release.site+archiveURL+" "+row.why)
			require.Equal(t, []string{"traefik", "traefik.origin"}, files(t, p.target))
		})
	}
}

func TestRelease_ofASiteThatIsNotThere(t *testing.T) {
	dropped := listenWithoutAccepting(t)
	for _, row := range []struct{ name, site, why string }{
		{"refused", unreachable(t), "cannot be reached: dial tcp"},
		{"a name that does not exist", "http://releases.invalid", "cannot be reached: dial tcp"},
		{"connected, and then nothing", dropped, "cannot be reached: "},
		{"not an address", "releases", "cannot be reached: unsupported protocol scheme"},
		{"switched off", "none", "because TRAEFIK_RELEASES is none"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, said := newProvider(t, row.site)
			begun := time.Now()
			require.NoError(t, p.provide(context.Background()))
			require.Less(t, time.Since(begun), 10*time.Second)
			require.Contains(t, said.String(), row.why)
			require.Contains(t, said.String(), "is built now")
		})
	}
}

// listenWithoutAccepting returns the address of a server that says nothing.
func listenWithoutAccepting(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	return "http://" + listener.Addr().String()
}

func TestRelease_forEachSystem(t *testing.T) {
	for _, row := range []struct{ system, machine, archive, binary string }{
		{"linux", "amd64", "traefik_v3.7.9_linux_amd64.tar.gz", "traefik"},
		{"darwin", "arm64", "traefik_v3.7.9_darwin_arm64.tar.gz", "traefik"},
		{"linux", "armv6", "traefik_v3.7.9_linux_armv6.tar.gz", "traefik"},
		{"windows", "amd64", "traefik_v3.7.9_windows_amd64.zip", "traefik.exe"},
	} {
		archive, binary := (&release{system: row.system, machine: row.machine}).archive()
		require.Equal(t, row.archive, archive)
		require.Equal(t, row.binary, binary)
	}
}

func TestExtract_ofAZipArchive(t *testing.T) {
	var packed bytes.Buffer
	entries := zip.NewWriter(&packed)
	for _, name := range []string{"LICENSE.md", "traefik.exe"} {
		entry, err := entries.Create(name)
		require.NoError(t, err)
		_, err = io.WriteString(entry, "the content of "+name)
		require.NoError(t, err)
	}
	require.NoError(t, entries.Close())
	archive := filepath.Join(t.TempDir(), "traefik.zip")
	require.NoError(t, os.WriteFile(archive, packed.Bytes(), 0o644))
	target := filepath.Join(t.TempDir(), "traefik.exe")
	r := &release{limits: hasty}
	require.NoError(t, r.extract(archive, "traefik.exe", target))
	content, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Equal(t, "the content of traefik.exe", string(content))
	require.ErrorContains(t, r.extract(archive, "traefik", target), "it holds no traefik")
}

// program writes a program and returns its path.
func program(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "my-traefik")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o755))
	return path
}

func TestGiven_isTakenIfItsVersionIsRight(t *testing.T) {
	for _, row := range []struct {
		name, binary, problem string
	}{
		{"right", traefik("3.7.9"), ""},
		{"another version", traefik("3.6.0"), "the binary is Traefik v3.6.0, not v3.7.9"},
		{"not a Traefik", "#!/bin/sh\necho 3.7.9\n", "the binary is no Traefik"},
		{"it does not run", "\x7fELF", "the binary does not run here"},
		{"it fails", "#!/bin/sh\nexit 3\n", "the binary does not run here: exit status 3"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, said := newProvider(t, "none")
			p.given = program(t, row.binary)
			err := p.provide(context.Background())
			if row.problem == "" {
				require.NoError(t, err)
				require.NoError(t, checkVersion(p.target))
				require.Equal(t, "Traefik v3.7.9: copied from "+p.given+", as TRAEFIK says\n", said.String())
				return
			}
			require.ErrorContains(t, err, "TRAEFIK: "+p.given+": "+row.problem)
			require.ErrorContains(t, err, "name the file of a Traefik v3.7.9, or unset the variable")
			require.NoFileExists(t, p.target, "it is neither replaced by a release nor by a build")
		})
	}
	t.Run("not there", func(t *testing.T) {
		p, _ := newProvider(t, "none")
		p.given = filepath.Join(t.TempDir(), "nothing")
		require.ErrorContains(t, p.provide(context.Background()), "TRAEFIK: stat "+p.given+": no such file")
	})
	t.Run("in PATH", func(t *testing.T) {
		p, _ := newProvider(t, "none")
		p.given = "my-traefik"
		path := program(t, traefik("3.7.9"))
		t.Setenv("PATH", filepath.Dir(path)+":"+os.Getenv("PATH"))
		require.NoError(t, p.provide(context.Background()))
		require.Equal(t, "copied from "+path+", as TRAEFIK says", originOf(p.target))
	})
	t.Run("the cached one", func(t *testing.T) {
		p, _ := newProvider(t, "none")
		require.NoError(t, p.provide(context.Background()))
		p.given = p.target
		require.NoError(t, p.provide(context.Background()))
		require.Contains(t, originOf(p.target), "built here with ")
	})
	t.Run("it comes before the cached one", func(t *testing.T) {
		p, _ := newProvider(t, "none")
		require.NoError(t, p.provide(context.Background()))
		p.given = program(t, traefik("3.7.9"))
		require.NoError(t, p.provide(context.Background()))
		require.Contains(t, originOf(p.target), "copied from "+p.given)
	})
}

func TestCached_isKeptAndItsOriginKnown(t *testing.T) {
	p, said := newProvider(t, released(t, traefik("3.7.9")).start(t))
	require.NoError(t, p.provide(context.Background()))
	origin := "the release, " + p.release.site + archiveURL
	require.Equal(t, origin, originOf(p.target))

	p.release.site = unreachable(t)
	p.compile = func(context.Context, string, io.Writer) error { return errors.New("nothing is built") }
	said.Reset()
	require.NoError(t, p.provide(context.Background()))
	require.Equal(t, "Traefik v3.7.9: "+origin+"\n", said.String(), "the site is not asked")

	t.Run("replaced by hand", func(t *testing.T) {
		require.NoError(t, os.WriteFile(p.target, []byte(traefik("3.7.9")+"# another\n"), 0o755))
		said.Reset()
		require.NoError(t, p.provide(context.Background()))
		require.Equal(t, "Traefik v3.7.9: of unknown origin\n", said.String())
	})
	t.Run("of another version", func(t *testing.T) {
		require.NoError(t, os.WriteFile(p.target, []byte(traefik("3.7.8")), 0o755))
		p.release.site = released(t, traefik("3.7.9")).start(t)
		said.Reset()
		require.NoError(t, p.provide(context.Background()))
		require.Contains(t, said.String(), "is replaced, because the binary is Traefik v3.7.8, not v3.7.9\n")
		require.Contains(t, said.String(), "the release, "+p.release.site)
		require.NoError(t, checkVersion(p.target))
	})
	t.Run("of another version, and nothing else is to be had", func(t *testing.T) {
		require.NoError(t, os.WriteFile(p.target, []byte(traefik("3.7.8")), 0o755))
		p.release.site = unreachable(t)
		require.EqualError(t, p.provide(context.Background()), "nothing is built")
		require.Equal(t, []string{"traefik", "traefik.origin"}, files(t, p.target))
	})
}

func TestInterrupted_neitherBuildsNorLeavesAnything(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	s := released(t, traefik("3.7.9"))
	s.serve = func(w http.ResponseWriter, r *http.Request, archive []byte) {
		w.Write(archive[:10])
		w.(http.Flusher).Flush()
		interrupt()
		<-r.Context().Done()
	}
	p, said := newProvider(t, s.start(t))
	p.compile = func(context.Context, string, io.Writer) error { return errors.New("it is built all the same") }
	require.ErrorIs(t, p.provide(ctx), context.Canceled)
	require.Empty(t, said.String())
	require.Empty(t, files(t, p.target))
}
