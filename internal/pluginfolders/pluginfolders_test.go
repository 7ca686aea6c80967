package pluginfolders

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOf_isWhatThePluginImports(t *testing.T) {
	folders, err := Of("../..")
	require.NoError(t, err)
	require.Subset(t, folders, []string{".", "breaker", "internal/store", "ratelimit"})
	require.NotContains(t, folders, "internal/redistest", "tests are no part of it")
	require.NotContains(t, folders, "internal/gen", "nor is what writes its source")
	require.Equal(t, ".", folders[len(folders)-1])
}

func TestOf_aFolderThatIsNone(t *testing.T) {
	_, err := Of(t.TempDir())
	require.ErrorContains(t, err, "go list")
}

// An image is built of what .dockerignore lets through.
func TestOf_isInTheImagesBuild(t *testing.T) {
	content, err := os.ReadFile("../../.dockerignore")
	require.NoError(t, err)
	folders, err := Of("../..")
	require.NoError(t, err)
	for _, folder := range folders {
		if folder != "." {
			top := strings.Split(folder, "/")[0]
			require.Contains(t, strings.Fields(string(content)), "!"+top+"/")
		}
	}
}
