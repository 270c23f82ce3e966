package update

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector"
	"tocsin/internal/keys"
)

// ErrNoRelease means that the source has published no release.
var ErrNoRelease = errors.New("no release has been published there")

// Fetch brings one file of a release from where the settings say to the path dst, at most limit bytes and one. What it brings is not
// trusted; it is run with the rights of the collector's folder.
func Fetch(ctx context.Context, c *collector.Config, name, dst string, limit int64) error {
	if name != filepath.Base(name) {
		return fmt.Errorf("%q is no file name", name)
	}
	w, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	err = fetch(ctx, c, name, w, limit)
	return errors.Join(err, w.Close())
}

func fetch(ctx context.Context, c *collector.Config, name string, w io.Writer, limit int64) error {
	source := c.Update.Source
	if strings.HasPrefix(source, "/") {
		f, err := os.Open(filepath.Join(source, name))
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: %s holds no %s", ErrNoRelease, source, name)
		}
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, io.LimitReader(f, limit+1))
		return err
	}
	tr := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 20 * time.Second, ResponseHeaderTimeout: 30 * time.Second, DisableCompression: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	defer tr.CloseIdleConnections()
	url := strings.TrimRight(source, "/") + "/" + name
	if source == "hub" {
		e, err := c.Enrolment()
		if err != nil {
			return err
		}
		k, err := keys.OpenCollector(c.KeyDir())
		if err != nil {
			return err
		}
		trust, err := k.Trust()
		if err != nil {
			return err
		}
		cert, err := k.Certificate()
		if err != nil {
			return err
		}
		tr.TLSClientConfig = keys.ClientConfig(func() *keys.Trust { return trust }, func() *tls.Certificate { return cert })
		address := c.Hub
		if address == "" {
			address = e.Address
		}
		url = "https://" + address + "/v1/releases/" + name
	} else if !strings.HasPrefix(source, "https://") {
		return fmt.Errorf("update.source: %q is neither hub, nor an https:// address, nor a folder", source)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // 64 MiB over a slow line
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := (&http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%w (%s)", ErrNoRelease, source)
	}
	if res.StatusCode != http.StatusOK {
		var p batch.Problem
		b, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		if json.Unmarshal(b, &p) == nil && p.Title != "" {
			return fmt.Errorf("fetch %s: %s. %s %s", name, strings.TrimRight(p.Title, "."), p.Detail, p.Next)
		}
		return fmt.Errorf("fetch %s: the answer is %s", name, res.Status)
	}
	_, err = io.Copy(w, io.LimitReader(res.Body, limit+1))
	return err
}
