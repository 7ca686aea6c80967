package main

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
)

// probed is what is wrong with the services that were there before: "" if they answer, or were started here.
type probed struct {
	redis, upstream string
}

// probe asks the Redis and the service that the user named. Neither has to be there for the gateway to run.
func (s *settings) probe() (p probed) {
	if !s.ownRedis {
		p.redis = problemOf(askRedis(s.redis, s.password, s.db))
	}
	if s.upstream == "" {
		p.upstream = problemOf(askUpstream(s.upstreamURL))
	}
	return p
}

func problemOf(err error) string {
	if err == nil {
		return ""
	}
	var in *url.Error
	if errors.As(err, &in) {
		err = in.Err
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

const probeTimeout = 2 * time.Second

func askRedis(address, password, db string) error {
	options := []redis.DialOption{
		redis.DialConnectTimeout(probeTimeout), redis.DialReadTimeout(probeTimeout), redis.DialWriteTimeout(probeTimeout),
	}
	if password != "" {
		options = append(options, redis.DialPassword(password))
	}
	if number, err := strconv.Atoi(db); err == nil {
		options = append(options, redis.DialDatabase(number))
	}
	c, err := redis.Dial("tcp", address, options...)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Do("PING")
	return err
}

// askUpstream takes any answer for a good one.
func askUpstream(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	if u.Scheme == "h2c" {
		port := u.Port()
		if port == "" {
			port = "80"
		}
		c, err := net.DialTimeout("tcp", net.JoinHostPort(u.Hostname(), port), probeTimeout)
		if err != nil {
			return err
		}
		return c.Close()
	}
	client := &http.Client{
		Timeout:       probeTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Get(address)
	if err != nil {
		return err
	}
	return response.Body.Close()
}
