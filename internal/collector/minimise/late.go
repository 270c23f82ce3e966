package minimise

import "tocsin/internal/event"

// Keys that are not the schema's: rules and packs, also those that a hub signs, register the fields they name, before a policy is compiled or
// after. Such a field is treated as it was before it had a key, when it was one of the fields that the schema does not know: it leaves by its whole name, under "*",
// or when the member lets it go, and never under the policy's wildcards. A pack cannot widen a policy by naming a field.

// lateTreatment is the treatment of a key beyond the schema's.
func (m *Minimiser) lateTreatment(k event.Key) treatment {
	i := int(k) - len(m.treat)
	if known := m.late.Load(); known != nil && i < len(*known) {
		return (*known)[i]
	}
	// Two may do this at once: they make the same.
	late := make([]treatment, max(event.NumKeys(), int(k)+1)-len(m.treat))
	for j := range late {
		switch {
		case !m.extraLeaves(event.Key(len(m.treat) + j).Name()): // stays
		case m.o.PseudonymAddresses:
			late[j] = address
		default:
			late[j] = leaves
		}
	}
	m.late.Store(&late)
	return late[i]
}
