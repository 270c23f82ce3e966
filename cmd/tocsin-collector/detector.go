package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"

	"tocsin/internal/baseline"
	"tocsin/internal/collector"
	"tocsin/internal/detect"
	"tocsin/rules"
)

// newDetector makes the engine of the rules that run on a site, and of the baselines beside them.
func newDetector(o collector.DetectorOptions) (collector.Detector, error) {
	files := o.Rules
	if files == nil {
		files = rules.FS
	}
	e, err := detect.New(detect.Options{Rules: files, Where: detect.Site, Origin: o.Collector, Withhold: o.Withhold, Exceptions: o.Exceptions, Logger: o.Logger, MaxGroups: 50_000})
	if err != nil {
		return nil, fmt.Errorf("on-site rules: %w", err)
	}
	b, err := baseline.New(baseline.Options{Where: baseline.Site, Origin: o.Collector, Withhold: o.Withhold, Logger: o.Logger})
	if err != nil {
		return nil, fmt.Errorf("on-site baselines: %w", err)
	}
	return &baseline.Joined{Rules: e, Baseline: b}, nil
}

// rulePack names the rules that are built in, by a digest over their files.
func rulePack() (string, error) {
	h := sha256.New()
	err := fs.WalkDir(rules.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(rules.FS, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s\x00%d\x00%s", name, len(b), b)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("on-site rules: %w", err)
	}
	return "built-in " + hex.EncodeToString(h.Sum(nil)[:8]), nil
}
