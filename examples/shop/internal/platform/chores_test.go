package platform

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// A chore is done each hour, also after it has failed, and ends with the service.
func TestHourlyRunsEachHourUntilTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		times := 0
		go hourly(ctx, slog.New(slog.DiscardHandler), "things", func(context.Context) (int64, error) {
			times++
			return 1, errors.New("the database is away")
		})
		time.Sleep(3*time.Hour + time.Minute)
		synctest.Wait()
		if times != 3 {
			t.Errorf("done %d times in three hours", times)
		}
		stop()
		time.Sleep(2 * time.Hour)
		if times != 3 {
			t.Errorf("done %d times after the end", times-3)
		}
	})
}
