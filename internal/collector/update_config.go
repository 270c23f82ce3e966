package collector

import "time"

// Update says where newer releases come from and whether they are installed without a person.
type Update struct {
	// Auto installs newer signed releases every night. Default false: the package's timer only looks, and doctor says what it saw. The
	// appliance sets it.
	Auto     bool          `yaml:"auto"`
	Source   string        `yaml:"source"`   // hub, an https:// address, or a folder; default hub
	Keys     string        `yaml:"keys"`     // file of the keys that may sign releases; default /usr/share/tocsin-collector/release-keys.json
	Dir      string        `yaml:"dir"`      // where newer programs stand; default /var/lib/tocsin-collector-programs
	Restart  string        `yaml:"restart"`  // command that restarts the service; default systemctl restart tocsin-collector.service
	Hold     time.Duration `yaml:"hold"`     // how long a new program must be healthy without a break; default 30s
	Deadline time.Duration `yaml:"deadline"` // how long it has for that; default 3m
}

func defaultUpdate() Update {
	return Update{Source: "hub", Keys: "/usr/share/tocsin-collector/release-keys.json", Dir: "/var/lib/tocsin-collector-programs",
		Restart: "systemctl restart tocsin-collector.service", Hold: 30 * time.Second, Deadline: 3 * time.Minute}
}
