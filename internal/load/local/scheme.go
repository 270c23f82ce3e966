package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// CreateScheme makes the scheme's keys with `tocsin admin init`, unless data, the hub's folder, has them. The offline keys go into a folder
// beside it: good enough for a demo or a measurement, and for nothing else.
func CreateScheme(ctx context.Context, tocsin, config, data, name string) error {
	_, err := os.Stat(filepath.Join(data, "keys", "trust.json")) // written last
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	cmd := exec.CommandContext(ctx, tocsin, "admin", "--config", config, "init", "--offline", filepath.Join(filepath.Dir(data), "offline"), "--name", name)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("create the scheme: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
