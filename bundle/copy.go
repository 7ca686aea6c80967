package main

import (
	"os"
	"path/filepath"
	"strings"
)

// copySources copies the Go files of one folder, without tests.
func copySources(from, to string, change func(name string, source []byte) ([]byte, error)) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		if err := copyFile(filepath.Join(from, name), filepath.Join(to, name), change); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string, change func(name string, source []byte) ([]byte, error)) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if change != nil {
		if content, err = change(filepath.Base(from), content); err != nil {
			return err
		}
	}
	return writeFile(to, content)
}

func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}
