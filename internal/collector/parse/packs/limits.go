package packs

// What a description may be at most. A pack that asks for more is refused when it is loaded, never while it runs.
const (
	MaxPacks     = 512       // packs in one set
	maxFile      = 256 << 10 // bytes of a parser.yaml
	maxReadme    = 256 << 10 // bytes of a README.md
	maxDepth     = 12        // nested YAML
	maxNodes     = 20000     // YAML nodes in one description
	MaxSlots     = 400       // native names that one pack speaks of
	maxMessages  = 600       // message variants
	maxSteps     = 8         // read steps of a message
	maxPatterns  = 64        // alternatives of one line step
	maxParts     = 64        // literals and captures of one pattern
	maxOps       = 4000      // fields, all messages together
	maxRules     = 1000      // rules, all messages together
	maxTableRows = 4000      // rows of value tables
	maxRecognise = 64        // ways to recognise a product
	maxLiteral   = 200       // bytes of one literal
	minTrigger   = 3         // bytes that a literal sought anywhere in the line must have
	maxNewNames  = 256       // field names of a pack that the schema does not have
)
