package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

// windowsXML reads a Windows event as XML, the form in which it is kept: <Event ...><System>...<EventID>4625</EventID>...
// <EventData><Data Name='IpAddress'>192.0.2.7</Data>....
func (s *Set) windowsXML(msg string) bool {
	i := find.Index(msg, "<Event ")
	if i < 0 || !find.Has(msg, "<EventID") {
		return false
	}
	t := msg[i:]
	if v, ok := between(t, "<EventID", "</EventID>"); ok {
		if j := strings.IndexByte(v, '>'); j >= 0 {
			s.str(event.EventCode, trim(v[j+1:]))
		}
	}
	if j := find.Index(t, "SystemTime="); j >= 0 {
		s.setTime(wordOf(t[j+11:]))
	}
	if v, ok := between(t, "<Computer>", "</Computer>"); ok {
		s.str(event.HostName, v)
	}
	if v, ok := between(t, "<Channel>", "</Channel>"); ok {
		s.str(event.LogLogger, v)
	}
	if j := find.Index(t, "<Provider Name="); j >= 0 {
		s.str(event.EventProvider, wordOf(t[j+15:]))
	}
	if v, ok := between(t, "<Level>", "</Level>"); ok {
		s.windowsNative("Level", v)
	}
	for pairs, r := 0, t; pairs < 200; pairs++ {
		j := find.Index(r, "<Data Name=")
		if j < 0 {
			break
		}
		r = r[j+11:]
		if len(r) < 3 {
			break
		}
		end := strings.IndexByte(r[1:], r[0])
		if end < 0 {
			break
		}
		name := r[1 : 1+end]
		r = r[1+end:]
		open := strings.IndexByte(r, '>')
		if open < 0 {
			break
		}
		r = r[open+1:]
		shut := find.Index(r, "</Data>")
		if shut < 0 {
			break
		}
		v := s.entities(r[:shut])
		s.windowsNative(name, v)
		s.windowsField(name, trim(v))
		r = r[shut:]
	}
	s.windowsUnnamed(t)
	s.windowsMeaning()
	return true
}

// windowsUnnamed keeps what has no name of EventData (<Data>text</Data>: param1, param2, as winlogbeat counts them) and the elements of UserData.
func (s *Set) windowsUnnamed(t string) {
	if r, ok := between(t, "<EventData>", "</EventData>"); ok {
		for n := 1; n <= len(unnamed); n++ {
			j := find.Index(r, "<Data>")
			if j < 0 {
				break
			}
			r = r[j+6:]
			shut := find.Index(r, "</Data>")
			if shut < 0 {
				break
			}
			s.windowsNative(unnamed[n-1], s.entities(r[:shut]))
			r = r[shut:]
		}
	}
	r, ok := between(t, "<UserData>", "</UserData>")
	for n := 0; ok && n < 100; n++ {
		open := strings.IndexByte(r, '<')
		if open < 0 {
			break
		}
		r = r[open+1:]
		end := strings.IndexByte(r, '>')
		if end <= 0 {
			break
		}
		name := r[:end]
		r = r[end+1:]
		if v, rest, ok := strings.Cut(r, "</"); ok && strings.HasPrefix(rest, name+">") && strings.IndexByte(v, '<') < 0 {
			s.windowsNative(name, s.entities(v))
			r = rest
		}
	}
}

// unnamed are the names of values that have none.
var unnamed = [...]string{"param1", "param2", "param3", "param4", "param5", "param6", "param7", "param8", "param9", "param10", "param11", "param12"}

// windowsNative keeps a value under Windows' own name, as it stood: rules ask for it so.
func (s *Set) windowsNative(name, v string) {
	if strings.IndexByte(name, ' ') >= 0 {
		name = strings.ReplaceAll(name, " ", "")
	}
	if v != "" && len(s.e.Extras()) < event.MaxExtras && extraName(name) {
		s.e.SetNamed(name, v)
	}
}

// windowsField maps one field of EventData. TargetUserName is who the event is about.
func (s *Set) windowsField(name, v string) {
	if v == "" || v == "-" {
		return
	}
	switch name {
	case "UtcTime": // of Sysmon: when it happened; the record's own time is when it was written
		if s.e.Str(event.EventProvider) == "Microsoft-Windows-Sysmon" {
			was := s.utc
			s.utc = true
			s.setTime(v)
			s.utc = was
		}
	case "TargetUserName":
		if person(v) != "" {
			s.e.Del(event.UserName)
			s.user(v)
		}
	case "SubjectUserName":
		s.user(v)
	case "TargetDomainName":
		s.str(event.UserDomain, v)
	case "IpAddress", "SourceAddress", "SourceIp", "ClientAddress":
		s.ip(event.SourceIP, strings.TrimPrefix(v, "::ffff:"))
	case "IpPort", "SourcePort":
		s.port(event.SourcePort, v)
	case "DestAddress", "DestinationIp":
		s.ip(event.DestinationIP, v)
	case "DestPort", "DestinationPort":
		s.port(event.DestinationPort, v)
	case "DestinationHostname":
		s.domain(event.DestinationDomain, v)
	case "Protocol":
		s.transport(v)
	case "WorkstationName":
		s.domain(event.SourceDomain, v)
	case "NewProcessName", "Image", "ProcessName":
		s.str(event.ProcessExecutable, v)
	case "CommandLine":
		s.str(event.ProcessCommandLine, v)
	case "ParentImage", "ParentProcessName":
		s.str(event.ProcessParentExecutable, v)
	case "User":
		s.user(v)
	case "QueryName":
		s.domain(event.DNSQuestionName, v)
	case "TargetFilename":
		s.str(event.FilePath, v)
	case "FailureReason", "Status", "SubStatus":
		if name == "FailureReason" {
			s.str(event.EventReason, v)
		}
	}
}

// windowsMeaning derives what the event's number says: sign-ins, refused sign-ins, blocked and permitted connections.
func (s *Set) windowsMeaning() {
	e := s.e
	s.device("Microsoft", "Windows", "")
	s.dataset("windows.event")
	n, _ := atoi(e.Str(event.EventCode))
	switch n {
	case 4624, 4648, 4768, 4769, 4776:
		s.str(event.EventAction, "logged-in")
		s.signIn("windows", true)
	case 4625, 4771, 4777:
		s.str(event.EventAction, "logon-failed")
		s.signIn("windows", false)
	case 4634, 4647:
		s.str(event.EventAction, "logged-out")
		s.category("session")
		s.kind("end")
	case 5152, 5157, 5155:
		s.action("block", deny)
		s.network()
	case 5156, 5154, 5158:
		s.action("permit", allow)
		s.network()
	case 4688:
		s.category("process")
		s.kind("start")
	case 4720, 4722, 4723, 4724, 4725, 4726, 4728, 4732, 4738, 4740, 4756, 4767, 4781:
		s.category("iam")
		s.kind("change")
	}
	s.str(event.EventKind, "event")
}
