package archive

import "tocsin/internal/collector/spool"

// Newest gives a reader of the newest lines of an archive that another process may be writing: of about that many bytes, and at least of
// the newest file. It changes nothing.
func Newest(dir string, bytes int64) (*Reader, error) {
	r, err := spool.ViewNewest(dir, bytes)
	if err != nil {
		return nil, err
	}
	return &Reader{r: r}, nil
}
