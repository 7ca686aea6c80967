package resilience

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/logging"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// recording is what the middlewares log outside of Traefik.
type recording struct {
	ended sync.WaitGroup

	mu   sync.Mutex // guards what follows
	text string
}

// record collects what is logged until the test ends.
func record(t *testing.T) *recording {
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	r := &recording{}
	r.ended.Add(1)
	go r.read(reader)
	before := logging.SetOutput(writer)
	t.Cleanup(func() {
		logging.SetOutput(before)
		writer.Close()
		r.ended.Wait()
	})
	return r
}

func (r *recording) read(from io.Reader) {
	defer r.ended.Done()
	piece := make([]byte, 4096)
	for {
		n, err := from.Read(piece)
		r.mu.Lock()
		r.text += string(piece[:n])
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// count returns how many lines hold the text.
func (r *recording) count(text string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, line := range strings.Split(r.text, "\n") {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// eventually waits until so many lines hold the text: they come through a pipe.
func (r *recording) eventually(t *testing.T, lines int, text string) {
	require.Eventually(t, func() bool { return r.count(text) == lines }, 5*time.Second, time.Millisecond, text)
}

// sizesOf returns how many scopes and how many stores the registry holds.
func sizesOf(g *registry) []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return []int{len(g.engines), len(g.stores)}
}

func isEmpty(g *registry) func() bool {
	return func() bool {
		sizes := sizesOf(g)
		return sizes[0]+sizes[1] == 0
	}
}

func TestScope_isSharedByName(t *testing.T) {
	base := func() *Config {
		return &Config{
			Name:           "gateway",
			Redis:          &RedisConfig{Address: "redis:6379"},
			RateLimit:      tokens("10"),
			CircuitBreaker: failures("5"),
		}
	}
	for _, row := range []struct {
		name           string
		change         func(config *Config)
		scopes, stores int // of the two
	}{
		{"nothing differs", func(config *Config) {}, 1, 1},
		{"other limits", func(config *Config) { config.RateLimit = tokens("20") }, 1, 1},
		{"a part less", func(config *Config) { config.CircuitBreaker = nil }, 1, 1},
		{"a part more", func(config *Config) { config.Health = &HealthConfig{} }, 1, 1},
		{"another onError", func(config *Config) { config.Redis.OnError = "deny" }, 1, 1},
		{"another name", func(config *Config) { config.Name = "other" }, 2, 1},
		{"another Redis", func(config *Config) { config.Redis.Address = "redis2:6379" }, 2, 2},
		{"another database", func(config *Config) { config.Redis.DB = "1" }, 2, 2},
		{"another password", func(config *Config) { config.Redis.Password = "s3cret" }, 2, 2},
		{"another timeout", func(config *Config) { config.Redis.Timeout = "1s" }, 2, 2},
		{"another prefix", func(config *Config) { config.Redis.KeyPrefix = "shop" }, 2, 2},
		{"no Redis", func(config *Config) { config.Redis = nil }, 2, 1},
		{"a Redis without an address", func(config *Config) { config.Redis.Address = "" }, 2, 1},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			processes := newProcess(t, time.Hour)
			newGateway(t, base())
			config := base()
			row.change(config)
			newGateway(t, config)
			require.Equal(t, []int{row.scopes, row.stores}, sizesOf(processes))
		})
	}
}

func TestScope_inThisProcess(t *testing.T) {
	config := func(name string, redis *RedisConfig) *Config {
		return &Config{Name: name, Redis: redis, RateLimit: tokens("3"), CircuitBreaker: failures("2")}
	}
	for _, row := range []struct {
		name, other string
		redis       *RedisConfig // of the other
		limited     int          // what the other answers when the first one's bucket is empty
		broken      int          // and when its circuit is open
	}{
		{"of one name", "gateway", nil, 429, 503},
		{"of one name, where Redis has no address", "gateway", &RedisConfig{DB: "1", Timeout: "1s"}, 429, 503},
		{"of two names", "other", nil, 200, 200},
	} {
		row := row
		t.Run("buckets of two middlewares "+row.name, func(t *testing.T) {
			newProcess(t, 0)
			one, _ := newGateway(t, config("gateway", nil))
			two, _ := newGateway(t, config(row.other, row.redis))
			for i := 0; i < 3; i++ {
				require.Equal(t, 200, get(one))
			}
			require.Equal(t, row.limited, get(two))
		})
		t.Run("circuits of two middlewares "+row.name, func(t *testing.T) {
			newProcess(t, 0)
			one, up := newGateway(t, config("gateway", nil))
			two, _ := newGateway(t, config(row.other, row.redis))
			up.will(status(500))
			require.Equal(t, 500, get(one))
			require.Equal(t, 500, get(one))
			require.Equal(t, row.broken, get(two))
		})
	}
}

// What this process knows outlives a reload, though Redis is away, or there is none.
func TestScope_outlivesAReload(t *testing.T) {
	for _, place := range []place{{"without Redis", nil}, {"while Redis is away", at(closedPort)}} {
		place := place
		t.Run(place.name, func(t *testing.T) {
			newProcess(t, time.Hour)
			limits := &Config{Name: "limits", Redis: place.redis, RateLimit: tokens("2")}
			breaks := &Config{Name: "breaks", Redis: place.redis, CircuitBreaker: failures("2")}
			up := &upstream{}
			ctx, reload := context.WithCancel(context.Background())
			limiter, breaker := newHandler(t, ctx, up, limits), newHandler(t, ctx, up, breaks)
			require.Equal(t, 200, get(limiter))
			require.Equal(t, 200, get(limiter))
			require.Equal(t, 429, get(limiter))
			up.will(status(500))
			require.Equal(t, 500, get(breaker))

			reload()
			require.Equal(t, 429, get(limiter), "the old ones go on until the new ones are there")
			require.Equal(t, 500, get(breaker))
			limiter, _ = newGateway(t, limits)
			breaker, _ = newGateway(t, breaks)
			require.Equal(t, 429, get(limiter))
			require.Equal(t, 503, get(breaker))
		})
	}
}

func TestScope_aReloadBringsNewLimits(t *testing.T) {
	newProcess(t, time.Hour)
	ctx, reload := context.WithCancel(context.Background())
	up := &upstream{}
	before := newHandler(t, ctx, up, &Config{RateLimit: tokens("100")})
	require.Equal(t, 200, get(before))
	reload()
	after, _ := newGateway(t, &Config{RateLimit: tokens("2")})
	require.Equal(t, []int{200, 200, 429}, []int{get(after), get(after), get(after)}, "a lower capacity cuts")
	require.Equal(t, 429, get(before), "of one bucket")
}

// connections tells how many the server has, but for the one that asks.
func connections(server *redistest.Server) int {
	return strings.Count(server.Text("CLIENT", "LIST"), "\n") - 1
}

// handlersOf returns how many handlers all scopes have, those in their grace among them.
func handlersOf(g *registry) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, one := range g.engines {
		n += one.users
	}
	return n
}

func TestScope_goesWithItsLastHandlerAfterTheGrace(t *testing.T) {
	const grace = 100 * time.Millisecond
	server := redistest.Start(t)
	processes := newProcess(t, grace)
	config := &Config{Redis: at(server.Addr()), RateLimit: tokens("10")}
	first, endFirst := context.WithCancel(context.Background())
	second, endSecond := context.WithCancel(context.Background())
	defer endSecond()
	one := newHandler(t, first, &upstream{}, config)
	two := newHandler(t, second, &upstream{}, config)
	other := newHandler(t, second, &upstream{}, &Config{Name: "other", Redis: config.Redis, RateLimit: tokens("10")})
	for _, handler := range []http.Handler{one, two, other} {
		require.Equal(t, 200, get(handler))
	}
	require.Equal(t, []int{2, 1}, sizesOf(processes))

	endFirst()
	require.Eventually(t, func() bool { return handlersOf(processes) == 2 }, 5*time.Second, time.Millisecond)
	require.Equal(t, []int{2, 1}, sizesOf(processes), "another handler has it still")

	require.Greater(t, connections(server), 0)

	ended := time.Now()
	endSecond()
	require.Eventually(t, isEmpty(processes), 5*time.Second, time.Millisecond)
	require.GreaterOrEqual(t, time.Since(ended), grace)
	haveEnded := func() bool { return connections(server) == 0 }
	require.Eventually(t, haveEnded, 5*time.Second, 10*time.Millisecond)
	require.Equal(t, 200, get(one), "a handler that is used still has its answer")
	require.Eventually(t, haveEnded, 5*time.Second, 10*time.Millisecond)
}

func TestScope_isTakenUpAgainWithinTheGrace(t *testing.T) {
	processes := newProcess(t, 300*time.Millisecond)
	config := &Config{RateLimit: tokens("1")}
	ctx, reload := context.WithCancel(context.Background())
	require.Equal(t, 200, get(newHandler(t, ctx, &upstream{}, config)))
	reload()
	after, _ := newGateway(t, config)
	require.Eventually(t, func() bool { return handlersOf(processes) == 1 }, 5*time.Second, time.Millisecond)
	require.Equal(t, 429, get(after))
	require.Equal(t, []int{1, 0}, sizesOf(processes))
}

// A stream may go on for hours after the reload that took its middleware away.
func TestScope_aRequestThatOutlivesItIsToldOf(t *testing.T) {
	server := redistest.Start(t)
	processes := newProcess(t, 0)
	ctx, end := context.WithCancel(context.Background())
	up := &upstream{}
	handler := newHandler(t, ctx, up, &Config{Redis: at(server.Addr()), CircuitBreaker: failures("1")})
	begun, finish := make(chan bool), make(chan bool)
	up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		<-finish
		w.WriteHeader(502)
	}))
	var done sync.WaitGroup
	done.Add(1)
	go func() {
		defer done.Done()
		get(handler)
	}()
	<-begun
	end()
	require.Eventually(t, isEmpty(processes), 5*time.Second, time.Millisecond)
	finish <- true
	done.Wait()
	require.Equal(t, "open", server.Hash(breakerOf(t))["state"])
	require.Eventually(t, func() bool { return connections(server) == 0 }, 5*time.Second, 10*time.Millisecond)
}

func TestScope_manyReloadsLeaveNothingBehind(t *testing.T) {
	const reloads, routers = 200, 3
	for _, grace := range []time.Duration{time.Hour, time.Millisecond} {
		grace := grace
		t.Run("grace "+grace.String(), func(t *testing.T) {
			server := redistest.Start(t)
			processes := newProcess(t, grace)
			config := &Config{Redis: at(server.Addr()), RateLimit: tokens("100000"), CircuitBreaker: failures("5")}
			before := runtime.NumGoroutine()
			var end func()
			for i := 0; i < reloads; i++ {
				if end != nil {
					end()
				}
				ctx, cancel := context.WithCancel(context.Background())
				end = cancel
				for router := 0; router < routers; router++ {
					require.Equal(t, 200, get(newHandler(t, ctx, &upstream{}, config)))
				}
			}
			defer end()
			require.Equal(t, []int{1, 1}, sizesOf(processes))
			require.Len(t, only(processes).handlers, routers)
			require.LessOrEqual(t, connections(server), 5)
			require.Eventually(t, func() bool { return runtime.NumGoroutine() < before+20 }, 5*time.Second, time.Millisecond)
		})
	}
}

// only returns the registry's one scope.
func only(g *registry) *engines {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.engines {
		return one
	}
	return nil
}

// swapped is a handler that a reload exchanges for another, as Traefik's router does.
type swapped struct {
	mu      sync.Mutex
	handler http.Handler
}

func (s *swapped) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	handler := s.handler
	s.mu.Unlock()
	handler.ServeHTTP(w, r)
}

func (s *swapped) set(handler http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = handler
}

func TestScope_reloadsUnderTrafficAddNoTokens(t *testing.T) {
	for _, place := range places(t) {
		place := place
		t.Run(place.name, func(t *testing.T) {
			newProcess(t, time.Hour)
			config := &Config{Redis: place.redis, RateLimit: tokens("90"), CircuitBreaker: failures("5")}
			ctx, end := context.WithCancel(context.Background())
			up := &upstream{}
			router := &swapped{handler: newHandler(t, ctx, up, config)}
			h := &hammer{counts: map[int]int{}}
			for i := 0; i < 10; i++ {
				h.done.Add(1)
				go h.strike(router, 40)
			}
			for i := 0; i < 30; i++ {
				end()
				ctx, end = context.WithCancel(context.Background())
				router.set(newHandler(t, ctx, up, config))
				time.Sleep(time.Millisecond)
			}
			h.done.Wait()
			end()
			require.Equal(t, map[int]int{200: 90, 429: 310}, h.counts)
		})
	}
}

func TestLog_saysWhatIsOnOnceForAllReloads(t *testing.T) {
	newProcess(t, time.Hour)
	log := record(t)
	ctx, reload := context.WithCancel(context.Background())
	config := &Config{Name: "gateway", RateLimit: &RateLimitConfig{Capacity: "7"}}
	newHandler(t, ctx, &upstream{}, config)
	newHandler(t, ctx, &upstream{}, config)
	log.eventually(t, 1, `"message":"middleware configured"`)
	log.eventually(t, 1, `"parts":"rate limit: 7 at once, 10 each 1s; state in this process"`)
	reload()
	newGateway(t, config)
	newGateway(t, &Config{Name: "other", RateLimit: &RateLimitConfig{Capacity: "8"}})
	log.eventually(t, 1, "8 at once")
	require.Equal(t, 2, log.count(`"message":"middleware configured"`))
}

func TestLog_warnsOnceOfOneNameWithTwoSettings(t *testing.T) {
	const warning = "middlewares of this name have different settings"
	config := func() *Config {
		return &Config{Name: "gateway", RateLimit: tokens("10"), CircuitBreaker: failures("5")}
	}
	for _, row := range []struct {
		name   string
		change func(config *Config)
		lines  int
	}{
		{"the same settings", func(config *Config) {}, 0},
		{"another name", func(config *Config) { config.Name = "other"; config.RateLimit = nil }, 0},
		{"another capacity", func(config *Config) { config.RateLimit = tokens("11") }, 1},
		{"another threshold", func(config *Config) { config.CircuitBreaker = failures("6") }, 1},
		{"a part less", func(config *Config) { config.CircuitBreaker = nil }, 1},
		{"another source", func(config *Config) {
			config.RateLimit.SourceCriterion = &SourceCriterionConfig{RequestHeaderName: "X-Api-Key"}
		}, 1},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, time.Hour)
			log := record(t)
			for i := 0; i < 3; i++ {
				ctx, reload := context.WithCancel(context.Background())
				newHandler(t, ctx, &upstream{}, config())
				changed := config()
				row.change(changed)
				newHandler(t, ctx, &upstream{}, changed)
				reload()
			}
			newGateway(t, &Config{Name: "last", RateLimit: tokens("1")})
			log.eventually(t, 1, `"middleware":"last","parts"`)
			require.Equal(t, row.lines, log.count(warning))
		})
	}
}

func TestLog_aReloadWithOtherSettingsIsNothingToWarnOf(t *testing.T) {
	newProcess(t, time.Hour)
	log := record(t)
	for i := 0; i < 3; i++ {
		ctx, reload := context.WithCancel(context.Background())
		newHandler(t, ctx, &upstream{}, &Config{Name: "gateway", RateLimit: tokens(strconv.Itoa(1 + i))})
		reload()
	}
	log.eventually(t, 3, `"message":"middleware configured"`)
	require.Equal(t, 0, log.count("warn"))
}

func TestLog_tellsOfRedisAndTheCircuit(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	log := record(t)
	handler, up := newGateway(t, &Config{Name: "gateway", Redis: at(server.Addr()), RateLimit: tokens("1000"), CircuitBreaker: failures("2")})
	get(handler)
	server.Kill()
	up.will(status(502))
	for i := 0; i < 4; i++ {
		get(handler)
	}
	log.eventually(t, 1, `"message":"redis unavailable"`)
	log.eventually(t, 1, `"redis":"`+server.Addr()+`"`)
	log.eventually(t, 1, `"message":"circuit open"`)
	log.eventually(t, 1, `"message":"upstream failed","middleware":"gateway","status":"502"`)
	log.eventually(t, 1, `"message":"refused: circuit open"`)
	up.will(nil)
	server.Run()
	log.eventually(t, 1, `"message":"redis is back"`)
	require.Equal(t, 0, log.count("unexpected redis reply"), "nor did it answer at all")
	get(handler)
	log.eventually(t, 1, `"message":"circuit closed"`)
}

// What is a hash in Redis is a name in the log.
func TestLog_tellsTheNameThatWasGiven(t *testing.T) {
	newProcess(t, 0)
	log := record(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := New(ctx, &upstream{}, &Config{RateLimit: tokens("1")}, "shop{way}@file")
	require.NoError(t, err)
	log.eventually(t, 1, `"message":"middleware configured","middleware":"shop{way}"`)
}

func TestLog_warnsOfAMiddlewareThatDoesNothing(t *testing.T) {
	const nothing = "this middleware does nothing: it has neither rateLimit nor circuitBreaker nor health"
	for _, row := range []struct {
		name   string
		config *Config
		lines  int
	}{
		{"an empty one", &Config{}, 1},
		{"a Redis alone", &Config{Name: "a", Redis: at("127.0.0.1:1")}, 1},
		{"a limit", &Config{RateLimit: tokens("1")}, 0},
		{"a circuit breaker", &Config{CircuitBreaker: failures("1")}, 0},
		{"a health path", &Config{Health: &HealthConfig{}}, 0},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			log := record(t)
			handler, _ := newGateway(t, row.config)
			require.Equal(t, 200, get(handler), "and lets all pass")
			newGateway(t, &Config{Name: "last", Redis: &RedisConfig{Address: "127.0.0.1:1", Password: "x"}, RateLimit: tokens("9")})
			log.eventually(t, 1, "redis.password can be read")
			require.Equal(t, row.lines, log.count(nothing))
		})
	}
}

func TestLog_tellsOfAKeyThatIsNotOurs(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	server.Do("RPUSH", bucketOf(t), "theirs")
	server.Do("RPUSH", breakerOf(t), "theirs")
	log := record(t)
	handler, _ := newGateway(t, &Config{Redis: at(server.Addr()), RateLimit: tokens("1000"), CircuitBreaker: failures("2")})
	for i := 0; i < 10; i++ {
		require.Equal(t, 200, get(handler))
	}
	log.eventually(t, 1, `"message":"unexpected redis reply","middleware":"`+t.Name()+`","reason":"ratelimit: the key in redis does not hold a bucket"`)
	log.eventually(t, 1, `"reason":"WRONGTYPE`)
	require.Equal(t, 0, log.count("redis unavailable"))
}

func TestLog_holdsNoSecret(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "right")
	newProcess(t, 0)
	log := record(t)
	handler, up := newGateway(t, &Config{
		Name: "gateway",
		Redis: &RedisConfig{
			Address: server.Addr(), Username: "somebody", Password: "t0p-s3cret", Timeout: "5s", OnError: "local"},
		RateLimit: &RateLimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: "1h",
			SourceCriterion: &SourceCriterionConfig{RequestHeaderName: "X-Api-Key"}},
		CircuitBreaker: failures("1"),
	})
	up.will(status(500))
	for i := 0; i < 3; i++ {
		request := httptest.NewRequest("GET", "/?token=t0p-s3cret", nil)
		request.Header.Set("X-Api-Key", "t0p-s3cret")
		request.Header.Set("Authorization", "Bearer t0p-s3cret")
		handler.ServeHTTP(httptest.NewRecorder(), request)
	}
	limiter, _ := newGateway(t, &Config{Name: "limiter", RateLimit: &RateLimitConfig{Capacity: "1",
		SourceCriterion: &SourceCriterionConfig{RequestHeaderName: "X-Api-Key"}}})
	for i := 0; i < 3; i++ {
		request := httptest.NewRequest("GET", "/?token=t0p-s3cret", nil)
		request.Header.Set("X-Api-Key", "t0p-s3cret")
		limiter.ServeHTTP(httptest.NewRecorder(), request)
	}

	log.eventually(t, 1, "redis.password can be read in Traefik's API")
	log.eventually(t, 1, "WRONGPASS")
	log.eventually(t, 1, "refused: circuit open")
	log.eventually(t, 1, `"client":"header:sha256:`)
	require.Equal(t, 0, log.count("t0p"))
	require.Equal(t, 0, log.count("s3cret"))
	require.Equal(t, 0, log.count("right"))
}

func TestScope_theHandlersOfAConfigurationLeaveTogether(t *testing.T) {
	g := newProcess(t, time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	for i := 0; i < 50; i++ {
		newHandler(t, ctx, &upstream{}, &Config{Name: "name-" + strconv.Itoa(i%3), RateLimit: tokens("10")})
	}
	require.Len(t, g.latest.refs, 50)
	first := g.latest
	next, cancelNext := context.WithCancel(context.Background())
	defer cancelNext()
	newHandler(t, next, &upstream{}, &Config{Name: "name-0", RateLimit: tokens("10")})
	require.Len(t, g.latest.refs, 1, "the next configuration has its own")

	cancel()
	g.releaseSet(first)
	require.Equal(t, []int{1, 0}, sizesOf(g), "what the next one uses stays")
	newHandler(t, ctx, &upstream{}, &Config{Name: "late", RateLimit: tokens("10")})
	require.NotSame(t, first, g.latest, "one that comes late begins anew")
}
