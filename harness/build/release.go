package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"runtime"
	"strings"
	"time"
)

// limits bound what a release may cost before a build is the better choice.
type limits struct {
	connect time.Duration // for the name, the connection and TLS; and then for the head of the answer
	stall   time.Duration // without a byte
	judge   time.Duration // after which the speed is judged
	total   time.Duration // for the whole archive, at that speed
	bytes   int64         // of the archive, and of the binary
}

var usual = limits{connect: 3 * time.Second, stall: 5 * time.Second, judge: 10 * time.Second, total: 2 * time.Minute, bytes: 1 << 30}

// release is the official release of the pinned version for one system.
type release struct {
	site            string
	system, machine string
	limits          limits
}

// machine returns the architecture as archives are named by it.
func machine() string {
	if runtime.GOARCH == "arm" {
		return "armv6" // runs on every later one too
	}
	return runtime.GOARCH
}

func (r *release) url(file string) string {
	return strings.TrimSuffix(r.site, "/") + "/v" + version + "/" + file
}

// archive returns the name of the archive, and that of the binary in it.
func (r *release) archive() (name, binary string) {
	name = fmt.Sprintf("traefik_v%s_%s_%s", version, r.system, r.machine)
	if r.system == "windows" {
		return name + ".zip", "traefik.exe"
	}
	return name + ".tar.gz", "traefik"
}

// fetch writes the binary of the release to a file, and returns the URL of its archive. An error names the URL that it is about.
func (r *release) fetch(ctx context.Context, target string) (from string, err error) {
	name, binary := r.archive()
	wanted, err := r.checksum(ctx, name)
	if err != nil {
		return "", err
	}
	from = r.url(name)
	file := target + path.Ext(name)
	defer os.Remove(file)
	got, err := r.download(ctx, from, file)
	if err != nil {
		return "", err
	}
	if got != wanted {
		return "", fmt.Errorf("%s has the checksum %s, not %s", from, got, wanted)
	}
	if err := r.extract(file, binary, target); err != nil {
		return "", fmt.Errorf("%s: %w", from, err)
	}
	return from, nil
}

// checksum returns the SHA-256 of the archive, as the release's own list has it.
func (r *release) checksum(ctx context.Context, archive string) (string, error) {
	from := r.url("traefik_v" + version + "_checksums.txt")
	var list strings.Builder
	if err := r.get(ctx, from, &list); err != nil {
		return "", err
	}
	for line := range strings.Lines(list.String()) {
		fields := strings.Fields(line) // the name may have the mark of a binary file or a path before it
		if len(fields) == 2 && path.Base(strings.TrimPrefix(fields[1], "*")) == archive {
			return strings.ToLower(fields[0]), nil
		}
	}
	return "", fmt.Errorf("%s names no %s", from, archive)
}

// download writes what the URL has to a file, and returns its SHA-256.
func (r *release) download(ctx context.Context, from, to string) (string, error) {
	file, err := os.Create(to)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	err = errors.Join(r.get(ctx, from, io.MultiWriter(file, hash)), file.Close())
	return hex.EncodeToString(hash.Sum(nil)), err
}

// get copies what the URL has. It gives up where that would take longer than the limits allow.
func (r *release) get(ctx context.Context, from string, to io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return fmt.Errorf("TRAEFIK_RELEASES: %w", err)
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: r.limits.connect}).DialContext,
		TLSHandshakeTimeout:   r.limits.connect,
		ResponseHeaderTimeout: r.limits.connect,
		DisableKeepAlives:     true,
		DisableCompression:    true, // a transparent one would change the bytes
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		var in *url.Error
		if errors.As(err, &in) {
			err = in.Err
		}
		return fmt.Errorf("%s cannot be reached: %w", from, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", from, response.Status)
	}
	body := &paced{from: io.LimitReader(response.Body, r.limits.bytes), limits: r.limits, size: response.ContentLength, begun: time.Now()}
	body.stalled = time.AfterFunc(r.limits.stall, func() { cancel(fmt.Errorf("nothing arrives for %s", r.limits.stall)) })
	defer body.stalled.Stop()
	if _, err := io.Copy(to, body); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("%s breaks off: %w", from, err)
	}
	return nil
}

// paced reads an answer, and ends it with an error when it comes too slowly.
type paced struct {
	from    io.Reader
	limits  limits
	size    int64 // -1: unknown
	read    int64
	begun   time.Time
	stalled *time.Timer
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.from.Read(b)
	p.read += int64(n)
	if n > 0 {
		p.stalled.Reset(p.limits.stall)
	}
	took := time.Since(p.begun)
	inTime := float64(p.size) * float64(took) / float64(p.limits.total) // what must have arrived by now
	if err == nil && (took > p.limits.total || took > p.limits.judge && float64(p.read) < inTime) {
		return n, fmt.Errorf("it would take longer than %s", p.limits.total)
	}
	return n, err
}

// extract writes the binary in an archive to a file.
func (r *release) extract(archive, binary, target string) error {
	open := openTar
	if strings.HasSuffix(archive, ".zip") {
		open = openZip
	}
	content, closeAll, err := open(archive, binary)
	if err != nil {
		return err
	}
	defer closeAll()
	return writeFile(target, io.LimitReader(content, r.limits.bytes))
}

func openTar(archive, binary string) (content io.Reader, closeAll func(), err error) {
	file, err := os.Open(archive)
	if err != nil {
		return nil, nil, err
	}
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	entries := tar.NewReader(unpacked)
	for {
		entry, err := entries.Next()
		if err != nil {
			file.Close()
			return nil, nil, missing(err, binary)
		}
		if path.Base(entry.Name) == binary && entry.Typeflag == tar.TypeReg {
			return entries, func() { file.Close() }, nil
		}
	}
}

func openZip(archive, binary string) (content io.Reader, closeAll func(), err error) {
	entries, err := zip.OpenReader(archive)
	if err != nil {
		return nil, nil, err
	}
	for _, entry := range entries.File {
		if path.Base(entry.Name) != binary || !entry.Mode().IsRegular() {
			continue
		}
		file, err := entry.Open()
		if err != nil {
			entries.Close()
			return nil, nil, err
		}
		return file, func() { file.Close(); entries.Close() }, nil
	}
	entries.Close()
	return nil, nil, missing(io.EOF, binary)
}

func missing(err error, binary string) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("it holds no %s", binary)
	}
	return err
}
