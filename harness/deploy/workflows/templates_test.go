package workflows

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// form is an issue form, as far as GitHub checks it.
type form struct {
	Name        string
	Description string
	Labels      []string
	Body        []struct {
		Type        string
		ID          string `yaml:"id"`
		Attributes  map[string]any
		Validations struct{ Required bool }
	}
}

// TestIssueForms: GitHub shows no form that breaks one of these rules.
func TestIssueForms(t *testing.T) {
	for _, name := range []string{"bug.yml", "feature.yml"} {
		t.Run(name, func(t *testing.T) {
			content, err := os.ReadFile(filepath.Join("../../../.github/ISSUE_TEMPLATE", name))
			require.NoError(t, err)
			var f form
			require.NoError(t, yaml.Unmarshal(content, &f))
			require.NotEmpty(t, f.Name)
			require.NotEmpty(t, f.Description)
			seen, inputs := map[string]bool{}, 0
			for _, field := range f.Body {
				if field.Type == "markdown" {
					require.NotEmpty(t, field.Attributes["value"])
					continue
				}
				inputs++
				require.Contains(t, []string{"input", "textarea", "dropdown", "checkboxes"}, field.Type)
				require.Regexp(t, `^[a-z-]+$`, field.ID)
				require.False(t, seen[field.ID], "twice: %s", field.ID)
				seen[field.ID] = true
				label, _ := field.Attributes["label"].(string)
				require.NotEmpty(t, label, field.ID)
				require.False(t, seen[label], "twice: %s", label)
				seen[label] = true
				if field.Type == "dropdown" || field.Type == "checkboxes" {
					require.NotEmpty(t, field.Attributes["options"], field.ID)
				}
			}
			require.Positive(t, inputs)
		})
	}
}
