// Package pluginfolders says which folders of the module the plugin is made of: those that Traefik's interpreter loads. They follow from
// what the plugin imports, so that no list must be kept.
package pluginfolders

import (
	"fmt"
	"os/exec"
	"strings"
)

const module = "github.com/resilient-gateway/resilience"

// Of returns the folders, relative to the root of the module, which is named ".". Each comes after those that it imports.
func Of(root string) ([]string, error) {
	command := exec.Command("go", "list", "-deps", ".")
	command.Dir = root
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("go list -deps in %s: %w", root, err)
	}
	var folders []string
	for _, path := range strings.Fields(string(out)) {
		if path == module {
			folders = append(folders, ".")
		} else if strings.HasPrefix(path, module+"/") {
			folders = append(folders, path[len(module)+1:])
		}
	}
	return folders, nil
}
