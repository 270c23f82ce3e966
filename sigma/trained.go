package sigma

import (
	_ "embed"
	"math"
)

// trained is what is known of Windows telemetry before the first event comes: which pieces of text are in how many values of a field, and
// how often pieces were seen at all. Results do not depend on it, their speed does. The file is made of the conformance data (OTRF
// Security Datasets and the regression events of SigmaHQ) by TestTrained, which also checks that it is what they give.
var trained = newTraining(trainedBytes)

//go:embed trained.bin
var trainedBytes []byte

// training has a byte for each hash of a field's name and a gram, and then one for each hash of a gram.
type training struct {
	fields []byte // 0: never seen; else the share of the field's values that have it, 2^((x-255)/16)
	grams  gramCounts
}

const trainedBits = 17

func newTraining(b []byte) *training {
	t := &training{}
	if len(b) != 1<<trainedBits+1<<gramCountBits+256 {
		return t // while the file is made
	}
	t.fields, t.grams = b[:1<<trainedBits], newGramCounts()
	for i, x := range b[1<<trainedBits:] {
		if x > 0 {
			t.grams[i] = uint16(min(math.Exp2(float64(x)/16), math.MaxUint16))
		}
	}
	return t
}

func trainedAt(field, gram uint32) uint32 {
	return (gram*gramMul ^ field) * 0xC2B2AE35 >> (32 - trainedBits)
}

// share is about the share of values of a field that have text: that of its rarest gram. Text has at least four bytes.
func (t *training) share(field uint32, text string) float64 {
	if t.fields == nil {
		return 0.02
	}
	least := byte(255)
	for i := 0; i+4 <= len(text); i++ {
		least = min(least, t.fields[trainedAt(field, gramAt(text, i))])
	}
	if least == 0 {
		return 0
	}
	return math.Exp2(float64(int(least)-255) / 16)
}
