package resilience

import (
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// These variables of Traefik's environment say which files and variables a configuration may name. Otherwise anyone who may write a
// middleware could have any of them sent to their own Redis as a password.
const (
	secretsDirEnv    = "RESILIENCE_SECRETS_DIR"        // files of secrets and certificates lie below it; unset: anywhere
	secretsPrefixEnv = "RESILIENCE_SECRETS_ENV_PREFIX" // variables of secrets begin with it; unset: with anything
)

const maxFile = 64 << 10 // bytes

// variable returns the value of a variable of Traefik's environment, without newlines at its end.
func (r *problems) variable(path, name string) string {
	if prefix := os.Getenv(secretsPrefixEnv); !strings.HasPrefix(name, prefix) {
		r.add(fmt.Sprintf("%s: the name %q does not begin with %q, as %s of Traefik's environment demands; write one that does",
			path, name, prefix, secretsPrefixEnv))
		return ""
	}
	return strings.TrimRight(os.Getenv(name), "\r\n")
}

// content reads a file. It returns nil if the file must not or cannot be read.
func (r *problems) content(path, file string) []byte {
	content, problem := readFile(file)
	if problem != "" {
		r.add(path + ": " + problem)
	}
	return content
}

// pair reads a certificate and its key.
func (r *problems) pair(path, cert, key string) (pair tls.Certificate) {
	certificate, secret := r.content(path+".cert", cert), r.content(path+".key", key)
	if certificate == nil || secret == nil {
		return pair
	}
	pair, err := tls.X509KeyPair(certificate, secret)
	if err != nil {
		r.add(fmt.Sprintf("%s: %q and %q are not a certificate and its key (%s); write the names of two such files, in PEM form",
			path, cert, key, err))
	}
	return pair
}

// readFile reads a regular file of at most maxFile bytes that a configuration may name, or says what is wrong with it. Nothing of its content
// is shown.
func readFile(file string) (content []byte, problem string) {
	allowed, problem := allowedFile(file)
	if problem != "" {
		return nil, problem
	}
	// Opening a pipe would wait for a writer, so the type comes first.
	info, err := os.Stat(allowed)
	if err != nil {
		return nil, unreadable(err)
	}
	if !info.Mode().IsRegular() {
		return nil, notRegular(file)
	}
	opened, err := os.Open(allowed)
	if err != nil {
		return nil, unreadable(err)
	}
	defer opened.Close()
	if info, err = opened.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, notRegular(file)
	}
	content, err = io.ReadAll(io.LimitReader(opened, maxFile+1))
	if err != nil {
		return nil, unreadable(err)
	}
	if len(content) > maxFile {
		return nil, fmt.Sprintf("%q is larger than 64 KB; write the name of a file with nothing but the secret or the certificates", file)
	}
	return content, ""
}

func unreadable(err error) string {
	return fmt.Sprintf("%s; write the name of a file that Traefik can read", err)
}

func notRegular(file string) string {
	return fmt.Sprintf("%q is not a regular file; write the name of one", file)
}

// allowedFile returns the file that a name stands for, or says why it must not be read. A symbolic link may point anywhere below the
// directory of secrets, as in a Kubernetes volume, but not out of it.
func allowedFile(file string) (allowed, problem string) {
	folder := os.Getenv(secretsDirEnv)
	if folder == "" {
		return file, ""
	}
	outside := fmt.Sprintf("%q is not below %q, as %s of Traefik's environment demands; write the name of a file that is",
		file, folder, secretsDirEnv)
	name, err := filepath.Abs(file)
	root, errRoot := filepath.Abs(folder)
	if err != nil || errRoot != nil || !isBelow(root, name) {
		return "", outside
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return "", fmt.Sprintf("%s of Traefik's environment: %s; write the name of a directory that Traefik can read", secretsDirEnv, err)
	}
	if name, err = filepath.EvalSymlinks(name); err != nil {
		return "", unreadable(err)
	}
	if !isBelow(root, name) {
		return "", outside
	}
	return name, ""
}

// isBelow reports whether a name is inside a folder. Both are absolute and clean.
func isBelow(folder, name string) bool {
	if folder != string(filepath.Separator) {
		folder += string(filepath.Separator)
	}
	return strings.HasPrefix(name, folder) && name != folder
}
