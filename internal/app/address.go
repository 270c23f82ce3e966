package app

import (
	"os"
	"path/filepath"
	"strings"

	"tocsin/internal/durable"
)

// addressFile is where a hub notes the address that collectors dial. Commands that are given the data folder alone, and no settings, make
// tokens with it: otherwise a token would name a guess.
func addressFile(dir string) string { return filepath.Join(dir, "gate.address") }

func noteAddress(dir, address string) error {
	if NotedAddress(dir) == address {
		return nil
	}
	return durable.Replace(addressFile(dir), []byte(address+"\n"), 0o600)
}

// NotedAddress is the address that collectors dial, as the hub on this data folder noted it when it last started; "" when none has.
func NotedAddress(dir string) string {
	b, err := os.ReadFile(addressFile(dir))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
