package main

import (
	"bytes"
	"errors"
	"regexp"
)

// versionFile is the file of the plugin that says its version, and undated how it says that it is of no release.
const (
	versionFile = "version.go"
	undated     = `const version = "0.0.0-dev"`
)

// A version as Go takes it: v1.2.3, or v1.3.0-rc.1.
var versionForm = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

var errNoVersion = errors.New(versionFile + ` does not hold the line ` + undated)

// withVersion writes a version into the file that says it. What is no version, such as the name of a branch, changes nothing.
func withVersion(version string) func(name string, source []byte) ([]byte, error) {
	return func(name string, source []byte) ([]byte, error) {
		if name != versionFile || !versionForm.MatchString(version) {
			return source, nil
		}
		if bytes.Count(source, []byte(undated)) != 1 {
			return nil, errNoVersion
		}
		return bytes.Replace(source, []byte(undated), []byte(`const version = "`+version[1:]+`"`), 1), nil
	}
}
