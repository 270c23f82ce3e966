package collector

import (
	"tocsin/internal/collector/minimise"
	"tocsin/internal/keys"
)

// Minimiser gives the policy as the settings apply it. In an enrolled collector's folder it makes that collector's pseudonyms.
func (c *Config) Minimiser() (*minimise.Minimiser, error) {
	var key [32]byte
	if _, err := keys.OpenCollector(c.KeyDir()); err == nil {
		if key, err = secret(c.KeyDir(), "pseudonyms"); err != nil {
			return nil, err
		}
	}
	return c.minimiser(key)
}
