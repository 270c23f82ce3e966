package sigma

type compiledCorrelation struct{}

func (e *Engine) correlations(list []*Correlation, refused func(*Meta, error)) {}
