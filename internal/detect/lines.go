package detect

// What is said of lines that are not understood any more. The hub says it of a whole collector (package health); a collector says it of one of its devices
// when the others hide that from the hub. Both under one id, so that the texts, steps and layers are the same.
const (
	LinesRule   = "tocsin-health-lines"
	LinesTitle  = "Lines are not understood any more"
	LinesFamily = "health-lines"
	LinesLevel  = "high"
)
