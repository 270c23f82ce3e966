package health

import "tocsin/internal/collector/parse/packs"

// shared are the names that stand for several data sets, which may be sources of their own at one collector.
var shared = map[string]bool{
	"Barracuda CloudGen Firewall": true, "Database": true, "Forcepoint Web Security": true, "Ivanti Connect Secure": true, "Juniper Junos": true, "Linux firewall": true,
	"Microsoft Entra ID": true, "Microsoft Windows": true, "Netskope Security Cloud": true, "Squid": true, "Trellix ePolicy Orchestrator": true, "Zeek": true, "nginx": true,
}

// product is what people call a source, with its data set where the name alone would say that others are meant too.
func product(dataset string) string {
	name := packs.ProductName(dataset)
	if shared[name] {
		name += " (" + dataset + ")"
	}
	return name
}
