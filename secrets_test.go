package resilience

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// setenv sets a variable while a test lasts.
func setenv(t *testing.T, name, value string) {
	require.NoError(t, os.Setenv(name, value))
	t.Cleanup(func() { os.Unsetenv(name) })
}

func TestFiles_areRegularAndSmall(t *testing.T) {
	folder := t.TempDir()
	huge := written(t, folder, "huge", "")
	require.NoError(t, os.Truncate(huge, 1<<40))
	for _, row := range []struct {
		name, file string
		problem    string // "": none
	}{
		{"of 64 KB", written(t, folder, "largest", strings.Repeat("a", 65536)), ""},
		{"of a byte more", written(t, folder, "larger", strings.Repeat("a", 65537)),
			"is larger than 64 KB; write the name of a file with nothing but the secret or the certificates"},
		{"of a terabyte", huge, "is larger than 64 KB; write the name of a file with nothing but the secret or the certificates"},
		{"without an end", "/dev/zero", "is not a regular file; write the name of one"},
		{"a folder", folder, "is not a regular file; write the name of one"},
		{"that there is not", filepath.Join(folder, "none"), "no such file or directory; write the name of a file that Traefik can read"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			requireFileProblem(t, row.file, row.problem)
		})
	}
}

// requireFileProblem gives a file to each key that names one. An empty problem says that the file itself is none.
func requireFileProblem(t *testing.T, file, problem string) {
	cert, key := certificate(t)
	for path, config := range map[string]*RedisConfig{
		"redis.passwordFile": {Address: "redis:6379", PasswordFile: file},
		"redis.tls.ca":       {Address: "redis:6379", TLS: &TLSConfig{Enabled: "true", CA: file}},
		"redis.tls.cert":     {Address: "redis:6379", TLS: &TLSConfig{Enabled: "true", Cert: file, Key: key}},
		"redis.tls.key":      {Address: "redis:6379", TLS: &TLSConfig{Enabled: "true", Cert: cert, Key: file}},
	} {
		_, err := readConfig(&Config{Redis: config}, "gateway@file")
		if problem != "" {
			require.True(t, err != nil && strings.Contains(err.Error(), path+": ") && strings.HasSuffix(err.Error(), problem), "%s: %v", path, err)
		} else if err != nil {
			require.Contains(t, err.Error(), " PEM ", path)
		}
		config.TLS = &TLSConfig{Enabled: "false", CA: file, Cert: file, Key: file}
		config.PasswordFile = ""
		_, err = readConfig(&Config{Redis: config}, "gateway@file")
		require.NoError(t, err, "where TLS is off, nobody needs it")
	}
}

// A volume of Kubernetes has a link for each file, to a folder that is another link.
func volume(t *testing.T) (folder string) {
	folder = t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(folder, "..2026"), 0o700))
	written(t, filepath.Join(folder, "..2026"), "password", "s3cret\n")
	require.NoError(t, os.Symlink("..2026", filepath.Join(folder, "..data")))
	require.NoError(t, os.Symlink(filepath.Join("..data", "password"), filepath.Join(folder, "password")))
	return folder
}

func TestFiles_areThoseOfTheDirectoryOfSecrets(t *testing.T) {
	base := t.TempDir()
	secrets := filepath.Join(base, "secrets")
	require.NoError(t, os.Mkdir(secrets, 0o700))
	require.NoError(t, os.Mkdir(secrets+"-of-others", 0o700))
	outside := written(t, base, "outside", "hidden")
	inside := written(t, secrets, "inside", "s3cret")
	mounted := volume(t)
	link := func(name, target string) string {
		require.NoError(t, os.Symlink(target, filepath.Join(secrets, name)))
		return filepath.Join(secrets, name)
	}
	linked := filepath.Join(base, "linked")
	require.NoError(t, os.Symlink(secrets, linked))
	for _, row := range []struct {
		name, folder, file string
		allowed            bool
	}{
		{"inside", secrets, inside, true},
		{"inside, by a long way", secrets, filepath.Join(secrets, "..", "secrets") + "/./inside", true},
		{"the folder with a slash at its end", secrets + "/", inside, true},
		{"the folder by a link", linked, filepath.Join(linked, "inside"), true},
		{"a link that stays inside", secrets, link("stays", "inside"), true},
		{"a mounted volume", mounted, filepath.Join(mounted, "password"), true},
		{"all of the machine's", "/", inside, true},
		{"no folder", "", outside, true},
		{"outside", secrets, outside, false},
		{"outside, by way of inside", secrets, secrets + "/../outside", false},
		{"outside, by a link", secrets, link("leaves", outside), false},
		{"outside, by a link of two steps", secrets, link("leaves-later", "leaves"), false},
		{"outside, by a link to a folder", secrets, filepath.Join(link("up", ".."), "outside"), false},
		{"a folder of a longer name", secrets, written(t, secrets+"-of-others", "x", "hidden"), false},
		{"inside, where the folder is another link", linked, inside, false},
		{"the folder itself", secrets, secrets, false},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			setenv(t, "RESILIENCE_SECRETS_DIR", row.folder)
			s, err := readConfig(&Config{Redis: &RedisConfig{Address: "redis:6379", PasswordFile: row.file}}, "gateway@file")
			if row.allowed {
				require.NoError(t, err)
				require.Contains(t, []string{"s3cret", "hidden"}, s.redis.Password)
				return
			}
			require.Equal(t, "", s.redis.Password)
			require.EqualError(t, err, `redis.passwordFile: "`+row.file+`" is not below "`+row.folder+
				`", as RESILIENCE_SECRETS_DIR of Traefik's environment demands; write the name of a file that is`)
			requireFileProblem(t, row.file, "RESILIENCE_SECRETS_DIR of Traefik's environment demands; write the name of a file that is")
		})
	}
}

func TestFiles_whereTheDirectoryOfSecretsIsMissing(t *testing.T) {
	setenv(t, "RESILIENCE_SECRETS_DIR", "/nowhere")
	_, err := readConfig(&Config{Redis: &RedisConfig{Address: "redis:6379", PasswordFile: "/nowhere/password"}}, "gateway@file")
	require.EqualError(t, err, "redis.passwordFile: RESILIENCE_SECRETS_DIR of Traefik's environment: lstat /nowhere: no such file or directory; "+
		"write the name of a directory that Traefik can read")
}

func TestVariables_areThoseOfThePrefix(t *testing.T) {
	setenv(t, "GATEWAY_REDIS", "s3cret")
	setenv(t, "CLOUD_TOKEN", "hidden")
	for _, row := range []struct {
		prefix, name string
		allowed      bool
	}{
		{"", "CLOUD_TOKEN", true},
		{"GATEWAY_", "GATEWAY_REDIS", true},
		{"GATEWAY_", "CLOUD_TOKEN", false},
		{"GATEWAY_", "GATEWAY", false},
		{"GATEWAY_", "gateway_REDIS", false},
		{"GATEWAY_", " GATEWAY_REDIS", false},
	} {
		row := row
		t.Run(row.prefix+" and "+row.name, func(t *testing.T) {
			setenv(t, "RESILIENCE_SECRETS_ENV_PREFIX", row.prefix)
			s, err := readConfig(&Config{Redis: &RedisConfig{Address: "redis:6379", PasswordEnv: row.name}}, "gateway@file")
			if row.allowed {
				require.NoError(t, err)
				require.NotEqual(t, "", s.redis.Password)
				return
			}
			require.Equal(t, "", s.redis.Password)
			require.EqualError(t, err, `redis.passwordEnv: the name "`+row.name+`" does not begin with "GATEWAY_", `+
				"as RESILIENCE_SECRETS_ENV_PREFIX of Traefik's environment demands; write one that does")
		})
	}
}
