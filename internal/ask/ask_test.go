package ask

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A question that is not answered is shared, waited for once, and forgotten when it is answered.
func TestOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = 2 * time.Second
		var a Asker[int]
		answer := make(chan int)
		var asked atomic.Int32
		ask := func() *Question[int] {
			return a.Ask(func() int {
				asked.Add(1)
				return <-answer
			})
		}
		start := time.Now()
		first := ask()
		for range 3 {
			if got, ok := ask().Wait(patience); ok || got != 0 {
				t.Errorf("an answer %d", got)
			}
		}
		if asked.Load() != 1 || time.Since(start) != patience || !first.Since.Equal(start) {
			t.Errorf("asked %d times, since %v, waited %v", asked.Load(), first.Since, time.Since(start))
		}
		answer <- 7
		synctest.Wait()
		if got, ok := first.Wait(0); !ok || got != 7 {
			t.Errorf("got %d, %v", got, ok)
		}
		second := ask()
		go func() {
			time.Sleep(time.Second)
			answer <- 8
		}()
		if got, ok := second.Wait(patience); !ok || got != 8 || asked.Load() != 2 {
			t.Errorf("got %d, %v, asked %d times", got, ok, asked.Load())
		}
	})
}
