package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"time"
)

// profile takes CPU profiles of the nodes and of this process, the writer, during
// one spell of load.
func profile(ctx context.Context, s logSettings, own *ownSide, c *contestant) error {
	if err := os.MkdirAll(s.profile, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(s.profile, "writer.pprof"))
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	errs := make([]error, len(own.places))
	var all sync.WaitGroup
	for i, p := range own.places {
		all.Go(func() {
			url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", own.admin[i], int(max(s.spell/time.Second, 1)))
			errs[i] = fetch(ctx, url, filepath.Join(s.profile, p.name+".pprof"))
		})
	}
	m, err := load(ctx, c.as, s.window, s.spell, c.pids)
	pprof.StopCPUProfile()
	all.Wait()
	fmt.Printf("  profiles of %s at %.0f /s are in %s\n", c.name, m.rate(), s.profile)
	return errors.Join(append(errs, err, f.Close())...)
}

func fetch(ctx context.Context, url, file string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return os.WriteFile(file, b, 0o600)
}
