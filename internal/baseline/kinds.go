package baseline

// Where the engine runs.
type Where string

// Places. What leaves a site under the policy metadata is judged at the hub, what stays at home on the site.
const (
	Site Where = "site"
	Hub  Where = "hub"
)

// Info is what is known of a kind of anomaly, for pages and mails. Its ID stands in detections as the rule's.
type Info struct {
	ID, Title, Level, Family string
	Site, Hub                bool // where it can arise
	Across                   bool // over members: for the centre
	Tags                     []string
	// EntityFields are those whose value a detection is about, for exceptions. Where it is about no address or account, its entity says so in words
	// before the value, as in "signature 2001219": an exception's value then begins with *.
	EntityFields []string
	// What the member reads: a short line, what happened, what to do.
	MemberTitle, What, Do string
	Analyst               string // what to look at, and what it does not prove
}

type kind uint8

const (
	deniedRate kind = iota
	failedRate
	idsRate
	sourcesRate
	outBytesRate
	newNetsRate
	deniedDrop
	newCountry
	newNetwork
	travel
	hostNetwork
	openedPort
	newSignature
	beacon
	acrossSource
	acrossSignature
	acrossURL
	acrossJA3
	elsewhere
	full
	kinds
)

// Infos lists all kinds of anomalies.
func Infos() []Info { return append([]Info(nil), infos[:]...) }

// Lookup finds a kind by its id.
func Lookup(id string) (Info, bool) {
	for i := range infos {
		if infos[i].ID == id {
			return infos[i], true
		}
	}
	return Info{}, false
}

var infos = [kinds]Info{
	deniedRate: {ID: "baseline-denied", Title: "Many more refused connections than usual", Level: "low", Family: "unusual-rate", Hub: true, Tags: []string{"attack.reconnaissance", "attack.t1595"},
		MemberTitle: "Your firewall refuses far more than it usually does", What: "Somebody on the Internet is knocking at your network much more than is usual for this hour. Your firewall refused these connections: nothing got in by them.",
		Do:      "You need not do anything now. If your Internet line is slow, tell whoever looks after your network.",
		Analyst: "Compare with the top source and the ports of the hour. A flood of refused packets proves no source. One source on many ports is a scan; many sources on one port is a campaign or a reflected attack."},
	failedRate: {ID: "baseline-signins-failed", Title: "Many more failed sign-ins than usual", Level: "medium", Family: "unusual-rate-signin", Hub: true, Tags: []string{"attack.credential-access", "attack.t1110"},
		MemberTitle: "Far more wrong passwords than usual", What: "In this hour many more sign-ins failed at your organisation than on the same day and hour of past weeks. Somebody may be trying passwords, or a program holds an old password.",
		Do:      "Check that two-step sign-in is on for everybody. Ask whoever looks after your network which accounts are concerned and whether any of them got in afterwards.",
		Analyst: "Look for one source against many accounts (spraying), many sources against one, and a success afterwards. A service with an expired password makes an even rate from one inside host."},
	idsRate: {ID: "baseline-ids", Title: "Many more intrusion alerts than usual", Level: "medium", Family: "unusual-rate-ids", Hub: true, Tags: []string{"attack.initial-access", "attack.t1190"},
		MemberTitle: "Your intrusion detection is unusually busy", What: "The system that watches for attacks reported far more than it usually does at this hour.",
		Do:      "Ask whoever looks after your network to read what it reported, the gravest first. Do not switch it off because it is loud.",
		Analyst: "See whether one signature makes the rise. A new rule set makes one as well: then it begins at several members at once."},
	sourcesRate: {ID: "baseline-sources", Title: "Refused connections from many more sources than usual", Level: "low", Family: "unusual-sources", Hub: true, Tags: []string{"attack.reconnaissance", "attack.t1595", "attack.t1498"},
		MemberTitle: "Unusually many strangers knock at your network", What: "Many more different computers on the Internet than usual tried to reach your network in this hour, and were refused. That may be a group of hijacked computers, or an attack that tries to fill your line.",
		Do:      "If your Internet line is slow or down, call your provider and say that you may be under a flood. Otherwise you need not do anything.",
		Analyst: "Sources of refused packets can be forged: a flood with random sources looks the same. Compare the rate of packets and the spread of ports."},
	outBytesRate: {ID: "baseline-outbound", Title: "Much more data sent out than usual", Level: "medium", Family: "unusual-upload", Site: true, Tags: []string{"attack.exfiltration", "attack.t1048", "attack.t1567"},
		MemberTitle: "Much more data than usual leaves your network", What: "In this hour far more was sent from your network to the Internet than on the same day and hour of past weeks. It may be a backup, or somebody copying your data out.",
		Do:      "Ask whoever looks after your network which machine sent it and where to. If nobody can explain it, disconnect that machine from the network, leave it switched on, and report it.",
		Analyst: "The collector names the machine that sent most. New backups, camera uploads and software publishing explain many of these. Bytes are as the firewall counts them when a connection ends."},
	newNetsRate: {ID: "baseline-new-networks", Title: "Machines inside speak with unusually many new networks", Level: "medium", Family: "unusual-contacts", Site: true, Tags: []string{"attack.command-and-control", "attack.t1071", "attack.discovery", "attack.t1046"},
		MemberTitle: "Your machines contact unusually many places for the first time", What: "Machines in your network connected to many more networks on the Internet that they had never used than is usual for this hour. A machine that scans or spreads something does that.",
		Do:      "Ask whoever looks after your network which machine it is, and have it checked for malicious software.",
		Analyst: "The collector names the machine with most of them. Peer-to-peer programs, new video services and a new machine do this too."},
	deniedDrop: {ID: "baseline-denied-drop", Title: "The firewall reports far fewer refusals than usual", Level: "low", Family: "unusual-quiet", Hub: true, Tags: []string{"attack.defense-evasion", "attack.t1562.004", "attack.t1562.008"},
		MemberTitle: "Your firewall has become unusually quiet", What: "Other logs still arrive, but your firewall reports hardly any refused connections, though at this hour it always did. Its logging may have been reduced, or a rule may let in what was refused before.",
		Do:      "Ask whoever looks after your firewall whether something was changed on it in the last hours, and whether refused connections are still logged.",
		Analyst: "Compare with changes of the firewall's configuration, and with what is let in now. A provider that filters upstream explains it too."},
	newCountry: {ID: "baseline-account-country", Title: "An account signs in from a country it never used", Level: "medium", Family: "unusual-signin", Site: true, Hub: true, EntityFields: []string{"user.name"}, Tags: []string{"attack.initial-access", "attack.t1078"},
		MemberTitle: "Somebody signed in from a country that is new for this account", What: "A sign-in with the right password came from a country from which this account had never signed in. The person may be travelling, or somebody else has the password.",
		Do:      "Ask the person, by telephone or face to face, whether it was they. If not: change the password, end all sign-ins of the account, and switch two-step sign-in on.",
		Analyst: "Only completed sign-ins count. Mobile networks, virtual private networks and wrong place data move people between countries."},
	newNetwork: {ID: "baseline-account-network", Title: "An account signs in from a network nobody here ever used", Level: "low", Family: "unusual-signin", Site: true, Hub: true, EntityFields: []string{"user.name"}, Tags: []string{"attack.initial-access", "attack.t1078"},
		MemberTitle: "Somebody signed in from a network that is new for your organisation", What: "A sign-in with the right password came from an Internet provider or data centre that nobody of your organisation has used before. That is often a hotel or a new telephone contract, and sometimes an intruder.",
		Do:      "Ask the person whether it was they. If not: change the password, end all sign-ins of the account, and switch two-step sign-in on.",
		Analyst: "Networks are autonomous systems at the hub; on a site, which knows no such numbers, IPv4 /16 and IPv6 /32. Hosting networks deserve a closer look than access networks."},
	travel: {ID: "baseline-travel", Title: "An account is in two countries sooner than anybody can travel", Level: "high", Family: "unusual-signin", Site: true, Hub: true, EntityFields: []string{"user.name"}, Tags: []string{"attack.initial-access", "attack.t1078"},
		MemberTitle: "The same account was used in two countries at nearly the same time", What: "Two sign-ins with the right password came from countries so far apart that no aeroplane could bring a person from one to the other in that time. One of the two is probably somebody else.",
		Do:      "Change the password of the account now, end all its sign-ins, and switch two-step sign-in on. Then ask the person which of the two they know.",
		Analyst: "The distance is the shortest between the two countries' coasts or borders, less 100 km; 900 km/h is assumed. Virtual private networks and shared accounts do this; countries that the account uses often are left out."},
	hostNetwork: {ID: "baseline-host-network", Title: "A machine of fixed habits speaks with a new network", Level: "low", Family: "unusual-contact", Site: true, EntityFields: []string{"source.ip"}, Tags: []string{"attack.command-and-control", "attack.t1071"},
		MemberTitle: "A machine that always speaks with the same places has found a new one", What: "A machine in your network that for weeks used only a few places on the Internet has connected to another one. For a server, a camera or a door controller that is worth a look.",
		Do:      "Ask whoever looks after the machine whether it was changed or updated. If nobody knows, have it checked.",
		Analyst: "Networks are IPv4 /16 and IPv6 /32 where no number of an autonomous system is known, so a provider that moves its servers makes a new one."},
	openedPort: {ID: "baseline-port-opened", Title: "The firewall lets the Internet in on a port for the first time", Level: "medium", Family: "new-exposure", Site: true, EntityFields: []string{"destination.ip"}, Tags: []string{"attack.persistence", "attack.initial-access", "attack.t1133"},
		MemberTitle: "A new door to your network is open", What: "Your firewall let in a connection from the Internet to a service that could not be reached from there before. Somebody may have opened it on purpose.",
		Do:      "Ask whoever looks after your firewall whether this was meant. If not, have it closed today, and find out who changed it.",
		Analyst: "Look for the change of configuration and for who connected. Answers to outgoing connections that a device reports the wrong way round look the same."},
	newSignature: {ID: "baseline-new-signature", Title: "An intrusion signature fires here for the first time", Level: "low", Family: "new-signature", Hub: true, EntityFields: []string{"rule.id"}, Tags: []string{"attack.initial-access", "attack.t1190"},
		MemberTitle: "Your intrusion detection reports something it never reported before", What: "The system that watches for attacks has recognised a kind of traffic that it has not seen at your organisation before.",
		Do:      "Ask whoever looks after your network to read the report. If it names a product that you use, see that it is up to date.",
		Analyst: "Signatures that at least five members had in the last weeks are left out, so that a new rule set does not ring everywhere."},
	beacon: {ID: "baseline-beacon", Title: "A machine calls one place in a regular beat", Level: "medium", Family: "beaconing", Site: true, EntityFields: []string{"source.ip"}, Tags: []string{"attack.command-and-control", "attack.t1071", "attack.t1029"},
		MemberTitle: "A machine in your network calls the same place again and again, like a clock", What: "A machine inside connects to one address on the Internet at even intervals, which it did not do before and which your other machines do not do. Malicious software reports to its owner in this way; so do some harmless programs.",
		Do:      "Ask whoever looks after the machine whether a program was installed that explains it. If not, disconnect the machine from the network, leave it switched on, and have it checked.",
		Analyst: "See who owns the address, how much is sent each time, and whether the beat stops at night. Time servers, name servers and what many machines call are left out; what beat while the collector learnt is taken as known."},
	acrossSource: {ID: "baseline-across-source", Title: "One source attacks several members", Level: "medium", Family: "campaign", Hub: true, Across: true, EntityFields: []string{"source.ip"}, Tags: []string{"attack.reconnaissance", "attack.t1595"},
		MemberTitle: "The same attacker is busy at several organisations", What: "One computer attacked several members of the scheme.", Do: "Follow the advice of the alerts about your own network.",
		Analyst: "Each member counts once, and only with a connection or session that proves the source. Lists are not made of this: see the rules for listing."},
	acrossSignature: {ID: "baseline-across-signature", Title: "The same intrusion signature newly fires at several members", Level: "medium", Family: "campaign-signature", Hub: true, Across: true, EntityFields: []string{"rule.name"}, Tags: []string{"attack.initial-access", "attack.t1190"},
		MemberTitle: "The same attack is seen at several organisations", What: "The same kind of attack was recognised at several members of the scheme.", Do: "Follow the advice of the alerts about your own network.",
		Analyst: "A signature that was quiet for a day and now fires at several members: a new campaign, or a new rule set. Compare the products that report it."},
	acrossURL: {ID: "baseline-across-url", Title: "The same URL pattern is tried at several members", Level: "medium", Family: "campaign-url", Hub: true, Across: true, EntityFields: []string{"url.path"}, Tags: []string{"attack.initial-access", "attack.t1190"},
		MemberTitle: "The same web address is tried at several organisations", What: "Attackers tried the same web address at several members of the scheme.", Do: "Follow the advice of the alerts about your own network.",
		Analyst: "Only requests that a device refused or reported count. Numbers and hexadecimal parts of the path are taken as one pattern. Look the path up: it often names the flaw that is searched for."},
	acrossJA3: {ID: "baseline-across-ja3", Title: "The same TLS fingerprint attacks several members", Level: "medium", Family: "campaign-ja3", Hub: true, Across: true, EntityFields: []string{"tls.client.ja3"}, Tags: []string{"attack.command-and-control", "attack.t1573"},
		MemberTitle: "The same tool is used against several organisations", What: "The same tool was recognised at several members of the scheme.", Do: "Follow the advice of the alerts about your own network.",
		Analyst: "Only connections that a device refused or reported count. A fingerprint names a library, not a person: browsers share theirs."},
	elsewhere: {ID: "baseline-elsewhere", Title: "What was seen here is seen at other organisations too", Level: "informational", Family: "seen-elsewhere", Hub: true, Tags: nil,
		MemberTitle: "You are not the only one: others see the same attack", What: "The centre sees the same attack at other organisations at this time. You are not being singled out. Which organisations they are is not shown to anybody but the centre.",
		Do:      "Follow the advice of the alerts about your own network. The centre is looking at the attacker.",
		Analyst: "The figure is rounded and shown only when at least five other members are behind it."},
	full: {ID: "baseline-full", Title: "The baselines have no room left", Level: "low", Family: "baseline-health", Site: true, Hub: true, Tags: nil,
		MemberTitle: "Some unusual things may have been missed", What: "More different accounts, machines or destinations were seen than can be remembered, so something unusual may have passed unnoticed.",
		Do:      "Tell the operator of the scheme. If it happens every day, the collector should be split in two.",
		Analyst: "The sentence says what was pushed out. A flood of forged lines does this as well: see which sender sent most."},
}
