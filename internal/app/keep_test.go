package app

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// What ends with an error is made anew and run again, after a wait that grows; a long good run makes it short again.
func TestKeepRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var waits []time.Duration
		runs, renewed := 0, 0
		err := keepRunning(ctx, func(context.Context) error {
			runs++
			switch runs {
			case 4:
				time.Sleep(restartWell + time.Second) // it was well for a while, by the test's clock
			case 6:
				cancel()
				return nil
			}
			return errors.New("broken")
		}, func(context.Context) error {
			if renewed++; renewed == 2 {
				return errors.New("cannot be made yet")
			}
			return nil
		}, func(_ error, wait time.Duration) { waits = append(waits, wait) })
		if err != nil || runs != 6 {
			t.Errorf("%d runs, %v", runs, err)
		}
		if want := []time.Duration{1e9, 2e9, 4e9, 8e9, 1e9, 2e9}; !slices.Equal(waits, want) {
			t.Errorf("waits %v, want %v", waits, want)
		}
	})
	// Told to stop while it waits.
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		err := keepRunning(ctx, func(context.Context) error { return errors.New("broken") }, nil, func(error, time.Duration) {})
		if err != nil {
			t.Error(err)
		}
	})
}
