// Package doctor looks for the faults that keep a collector from its work, and says what to do about each in words for whoever stands
// before the machine.
//
// It reads the settings, the collector's folder, the status socket, the end of the archive of raw lines, the kernel's tables of sockets,
// the machine's packet filter (nft and iptables-save, as root), and it asks the hub who this collector is. As root it also watches the
// network for some seconds, so that "the firewall does not send" and "this machine's packet filter holds it back" can be told apart; of
// the packets it looks at addresses, ports and the first bytes, and keeps none. It writes nothing, holds nothing, and may run at any time
// beside a collector, also in a folder that is not its own.
package doctor
