package walkthrough

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFolders_theExamples(t *testing.T) {
	found, err := Folders("../..")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(found.Compose), 6)
	require.Equal(t, []string{"../../examples/kubernetes"}, found.Manifests)
	require.Equal(t, []string{"../../examples/helm"}, found.Helm)
}

const readme = "# One\n\n```console\n$ docker compose up --build --detach --wait\n```\n\n" +
	"```console\n$ curl -i http://127.0.0.1:5000/ok\nHTTP/1.1 429 Too Many Requests\nRetry-After: 60\n[...]\n\n{}\n" +
	"$ echo of [...] no interest\nof no interest\n```\n\n```sh\n$ not read\n```\n\n```console\n$ docker compose down\n```\n"

func TestFolders_whatIsMissingIsToldOf(t *testing.T) {
	for _, row := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"all is there", map[string]string{"README.md": "[one](one)", "one/README.md": readme, "one/docker-compose.yml": ""}, ""},
		{"manifests do as well", map[string]string{"README.md": "[one](one)", "one/README.md": readme, "one/gateway.yaml": ""}, ""},
		{"so do values", map[string]string{"README.md": "[one](one)", "one/README.md": readme, "one/values.yaml": "", "one/more.yaml": ""}, ""},
		{"no README", map[string]string{"README.md": "[one](one)", "one/docker-compose.yml": ""}, "one/README.md: no such file"},
		{"nothing to start", map[string]string{"README.md": "[one](one)", "one/README.md": readme}, "no test starts it"},
		{"not in the index", map[string]string{"README.md": "", "one/README.md": readme, "one/docker-compose.yml": ""}, "does not link to one"},
		{
			"a README without commands",
			map[string]string{"README.md": "[one](one)", "one/README.md": "# One", "one/docker-compose.yml": ""}, "0 commands in console blocks",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			root := t.TempDir()
			for name, content := range row.files {
				path := filepath.Join(root, "examples", name)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
			}
			_, err := Folders(root)
			if row.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, row.want)
			}
		})
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "README.md")
	require.NoError(t, os.WriteFile(path, []byte(readme), 0o644))
	steps, err := Read(path)
	require.NoError(t, err)
	require.Equal(t, []Step{
		{Line: 4, Command: "docker compose up --build --detach --wait"},
		{Line: 8, Command: "curl -i http://127.0.0.1:5000/ok", Want: "HTTP/1.1 429 Too Many Requests\nRetry-After: 60\n[...]\n\n{}\n"},
		{Line: 14, Command: "echo of [...] no interest", Want: "of no interest\n"},
		{Line: 23, Command: "docker compose down"},
	}, steps)
}

func TestSection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "README.md")
	const text = "# One\n```console\n$ before\n```\n## Two\n```console\n$ run\n# no heading\n```\n### Three\n```console\n$ after\n```\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	steps, err := Section(path, "## Two")
	require.NoError(t, err)
	require.Equal(t, []Step{{Line: 7, Command: "run", Want: "# no heading\n"}}, steps)
	_, err = Section(path, "## Four")
	require.ErrorContains(t, err, `no commands in console blocks below "## Four"`)
}

func TestMatch(t *testing.T) {
	for _, row := range []struct {
		name, want, got string
		matches         bool
	}{
		{"the same", "      5 200\n      3 429\n", "      5 200\n      3 429\n", true},
		{"another number", "      5 200\n      3 429\n", "      6 200\n      2 429\n", false},
		{"a line more", "closed\n", "closed\nopen\n", false},
		{"a line less", "closed\nopen\n", "closed\n", false},
		{"nothing", "", "", true},
		{"something where there is nothing", "", "error\n", false},
		{"a last line that does not end", "{}\n", "{}", true},
		{"lines that end as HTTP's do", "HTTP/1.1 200 OK\n\n{}\n", "HTTP/1.1 200 OK\r\n\r\n{}", true},
		{"any lines", "HTTP/1.1 200 OK\n[...]\n\n{}\n", "HTTP/1.1 200 OK\nDate: x\nVary: y\n\n{}", true},
		{"no lines", "a\n[...]\nb\n", "a\nb\n", true},
		{"any lines, and then another", "HTTP/1.1 200 OK\n[...]\n\n{}\n", "HTTP/1.1 200 OK\nDate: x\n\n[]", false},
		{"any text", "bucket:ip:[...]\n", "bucket:ip:172.18.0.1\n", true},
		{"no expressions", "a.c\n", "abc\n", false},
		{"time that has passed", "Retry-After: 60\n", "Retry-After: 58\n", true},
		{"more time", "Retry-After: 60\n", "Retry-After: 61\n", false},
		{"much less time", "Retry-After: 60\n", "Retry-After: 6\n", false},
		{"no time", "Retry-After: 5\n", "Retry-After: 0\n", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := Step{Want: row.want}.Match(row.got)
			require.Equal(t, row.matches, err == nil, "%v", err)
		})
	}
}
