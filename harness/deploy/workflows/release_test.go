package workflows

import (
	"io/fs"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	module = "github.com/resilient-gateway/resilience"
	token  = "the-token"
	// gh, as far as git asks it for the token.
	ghStub = `[ "$1 $2 $3" != "auth git-credential get" ] || printf 'username=x-access-token\npassword=%s\n' "$GH_TOKEN"`
)

// forge is a repository behind HTTP, which wants the token for reading and writing, and a checkout of its main branch as the
// workflow makes it: of one commit, without credentials.
type forge struct {
	bare     string
	checkout string
	main     string // commit
}

func startForge(t *testing.T, source string) *forge {
	t.Helper()
	folder := t.TempDir()
	f := &forge{bare: filepath.Join(folder, "resilience.git"), checkout: filepath.Join(folder, "checkout")}
	command(t, folder, "git", "clone", "--quiet", "--bare", source, f.bare)
	command(t, f.bare, "git", "symbolic-ref", "HEAD", "refs/heads/main")
	second := strings.TrimSpace(command(t, f.bare, "git", "-c", "user.name=test", "-c", "user.email=test@example.org",
		"commit-tree", head(t, source)+"^{tree}", "-p", head(t, source), "-m", "second"))
	for _, ref := range strings.Fields(command(t, f.bare, "git", "for-each-ref", "--format=%(refname)")) {
		command(t, f.bare, "git", "update-ref", "-d", ref)
	}
	command(t, f.bare, "git", "update-ref", "refs/heads/main", second)
	command(t, f.bare, "git", "config", "http.receivepack", "true")
	f.main = second

	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(command(t, folder, "git", "--exec-path")), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + folder, "GIT_HTTP_EXPORT_ALL=1"},
	}
	require.FileExists(t, backend.Path)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "x-access-token" || password != token {
			w.Header().Set("WWW-Authenticate", `Basic realm="forge"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)

	command(t, folder, "git", "clone", "--quiet", "--depth=1", "file://"+f.bare, f.checkout)
	command(t, f.checkout, "git", "remote", "set-url", "origin", server.URL+"/resilience.git")
	require.Equal(t, "true", strings.TrimSpace(command(t, f.checkout, "git", "rev-parse", "--is-shallow-repository")))
	return f
}

func head(t *testing.T, dir string) string {
	t.Helper()
	return strings.TrimSpace(command(t, dir, "git", "rev-parse", "HEAD"))
}

// refs are the references of the repository, with what they name.
func (f *forge) refs(t *testing.T) string {
	t.Helper()
	return command(t, f.bare, "git", "for-each-ref", "--format=%(objectname) %(objecttype) %(refname)")
}

func (f *forge) tag(t *testing.T, name, commit string) {
	t.Helper()
	command(t, f.bare, "git", "update-ref", "refs/tags/"+name, commit)
}

func tryVersion(t *testing.T, d *desk) {
	f := startForge(t, d.dir)
	d.dir = f.checkout
	d.fake(t, "gh", ghStub)
	asked := map[string]string{"TAG": "v1.2.3", "REF": "refs/heads/main", "GH_TOKEN": token}
	refused := func(t *testing.T, change map[string]string, reason string) {
		t.Helper()
		result := d.run(t, with(asked, change))
		require.NotZero(t, result.code, "%v", change)
		require.Contains(t, result.output, reason, "%v", change)
	}

	for _, version := range []string{"v1.2.3", "v0.1.0", "v1.10.0", "v1.3.0-rc.1", "v1.3.0-alpha-1.x"} {
		d.succeed(t, with(asked, map[string]string{"TAG": version}))
	}
	for _, version := range []string{
		"", "1.2.3", "v1.2", "v1", "v01.2.3", "v1.2.03", "v1.2.3+build", "v1.2.3-", "v1.2.3-01", "v1.2.3-a..b", "V1.2.3", " v1.2.3", "v1.2.3 ", "v1.2.3\n",
		"v1.2.3;x", "v1.2.3\nv1.2.4", "latest", "--help", "$(x)",
	} {
		refused(t, map[string]string{"TAG": version}, "is not a version such as v1.2.3")
	}
	refused(t, map[string]string{"TAG": "v2.0.0"}, "/v2 at the end of the module's path")
	refused(t, map[string]string{"REF": "refs/heads/feature"}, "releases are made from main, not from refs/heads/feature")
	refused(t, map[string]string{"REF": "refs/tags/v1.0.0"}, "releases are made from main")
	refused(t, map[string]string{"GH_TOKEN": "another"}, "Authentication failed")

	f.tag(t, "v1.2.3", f.main)
	refused(t, nil, "v1.2.3 exists")
	d.succeed(t, with(asked, map[string]string{"TAG": "v1.2.30"}))
	f.tag(t, "latest", f.main)
	refused(t, map[string]string{"TAG": "v1.2.4"}, "the tag 'latest' is not a version: while it exists, the catalogue refuses the plugin")
}

func tryTag(t *testing.T, d *desk) {
	f := startForge(t, d.dir)
	built := filepath.Join(d.dir, "dist")
	d.dir = f.checkout
	d.fake(t, "gh", ghStub)
	env := with(images, map[string]string{"TAG": "v1.2.3", "GH_TOKEN": token})

	result := d.run(t, env)
	require.NotZero(t, result.code)
	require.Contains(t, result.output, "there is no bundle in dist")
	require.NoError(t, os.CopyFS(filepath.Join(d.dir, "dist"), os.DirFS(built)))
	require.NotZero(t, d.run(t, with(env, map[string]string{"TAG": "latest"})).code)
	require.NotZero(t, d.run(t, with(env, map[string]string{"GH_TOKEN": "another"})).code)
	require.Equal(t, f.main+" commit refs/heads/main\n", f.refs(t), "what was refused left something behind")

	result = d.succeed(t, env)
	require.NotContains(t, result.output, token)
	tagged := strings.TrimSpace(command(t, f.bare, "git", "rev-parse", "refs/tags/v1.2.3"))
	require.Equal(t, f.main+" commit refs/heads/main\n"+tagged+" commit refs/tags/v1.2.3\n", f.refs(t))
	require.Equal(t, f.main, strings.TrimSpace(command(t, f.bare, "git", "rev-parse", "v1.2.3^")), "the parent is the source")
	require.Empty(t, command(t, f.bare, "git", "branch", "--contains", "v1.2.3"), "on a branch")
	require.Empty(t, command(t, f.checkout, "git", "status", "--porcelain"), "the checkout is changed")
	requireSameFiles(t, filepath.Join(built, bundle), export(t, f.bare, "v1.2.3"))

	t.Run("again, after a failure that came later", func(t *testing.T) {
		before := f.refs(t)
		d.succeed(t, env)
		require.Equal(t, before, f.refs(t))
	})
	t.Run("never moves a tag", func(t *testing.T) {
		before := f.refs(t)
		require.NoError(t, os.WriteFile(filepath.Join(d.dir, "dist", bundle, "plugin.go"), []byte("package resilience\n"), 0o644))
		result := d.run(t, env)
		require.NotZero(t, result.code)
		require.Contains(t, result.output, "already exists")
		require.Equal(t, before, f.refs(t))
	})
	t.Run("Go finds the version", func(t *testing.T) { goFinds(t, f, "v1.2.3") })
}

// export unpacks the tree of a tag.
func export(t *testing.T, repository, tag string) string {
	t.Helper()
	folder := t.TempDir()
	archive := exec.Command("git", "archive", "--format=tar", tag)
	archive.Dir = repository
	unpack := exec.Command("tar", "-x", "-C", folder)
	var err error
	unpack.Stdin, err = archive.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, unpack.Start())
	require.NoError(t, archive.Run())
	require.NoError(t, unpack.Wait())
	return folder
}

func requireSameFiles(t *testing.T, want, have string) {
	t.Helper()
	contents := func(folder string) map[string]string {
		files := map[string]string{}
		require.NoError(t, filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				name, _ := filepath.Rel(folder, path)
				files[name] = read(t, path)
			}
			return err
		}))
		return files
	}
	require.Equal(t, contents(want), contents(have))
}

// goFinds requires that the go command, and so Go's module proxy, which the catalogue asks for the versions, finds a tag outside the
// branches.
func goFinds(t *testing.T, f *forge, version string) {
	t.Helper()
	folder := t.TempDir()
	config := filepath.Join(folder, "gitconfig")
	require.NoError(t, os.WriteFile(config, []byte("[url \"file://"+f.bare+"\"]\n\tinsteadOf = https://"+module+"\n"), 0o600))
	ask := func(arguments ...string) string {
		ask := exec.Command("go", arguments...)
		ask.Dir = folder
		ask.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+config, "GIT_TERMINAL_PROMPT=0", "GOPROXY=direct", "GOSUMDB=off", "GOWORK=off",
			"GOFLAGS=-modcacherw", "GOMODCACHE="+filepath.Join(folder, "modcache"))
		output, err := ask.CombinedOutput()
		require.NoError(t, err, "go %s: %s", arguments, output)
		return string(output)
	}
	require.Equal(t, module+" "+version+"\n", ask("list", "-m", "-versions", module))
	require.Contains(t, ask("mod", "download", "-json", module+"@"+version), `"Version": "`+version+`"`)
}
