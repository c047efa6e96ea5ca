// go-redis over RESP2 and RESP3: the server must look like Redis to it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

var ctx = context.Background()

func must[T comparable](what string, got T, err error, want T) {
	if err != nil || got != want {
		fmt.Fprintf(os.Stderr, "go: %s: got %v (%v), want %v\n", what, got, err, want)
		os.Exit(1)
	}
}

func smoke(address string, protocol int) {
	r := redis.NewClient(&redis.Options{Addr: address, Protocol: protocol})
	defer r.Close()
	must("flushall", "", r.FlushAll(ctx).Err(), "")
	set, err := r.Set(ctx, "k", "v\r\n\x00", 100*time.Second).Result()
	must("set", set, err, "OK")
	get, err := r.Get(ctx, "k").Result()
	must("get", get, err, "v\r\n\x00")
	_, err = r.Get(ctx, "none").Result()
	must("nil", errors.Is(err, redis.Nil), nil, true)
	won, err := r.SetNX(ctx, "k", "w", 0).Result()
	must("setnx", won, err, false)
	err = r.LPush(ctx, "k", "x").Err()
	must("wrongtype", strings.HasPrefix(err.Error(), "WRONGTYPE"), nil, true)

	_, err = r.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range 500 {
			p.Set(ctx, fmt.Sprintf("p:%d", i), i, 0)
		}
		return nil
	})
	must("pipeline", "", err, "")
	seen := map[string]bool{}
	scan := r.Scan(ctx, 0, "p:*", 20).Iterator()
	for scan.Next(ctx) {
		seen[scan.Val()] = true
	}
	must("scan", len(seen), scan.Err(), 500)

	err = r.Watch(ctx, func(tx *redis.Tx) error {
		r.Set(ctx, "w", "other", 0)
		_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error { return p.Set(ctx, "w", "mine", 0).Err() })
		return err
	}, "w")
	must("watch", errors.Is(err, redis.TxFailedErr), nil, true)

	r.HSet(ctx, "h", "f", 1, "g", 2)
	all, err := r.HGetAll(ctx, "h").Result()
	must("hgetall", all["f"]+all["g"], err, "12")
	r.ZAdd(ctx, "z", redis.Z{Score: 0.5, Member: "half"}, redis.Z{Score: 1, Member: "one"})
	pairs, err := r.ZRangeWithScores(ctx, "z", 0, -1).Result()
	must("zrange", fmt.Sprint(pairs), err, "[{0.5 half} {1 one}]")
	r.SAdd(ctx, "s", "x", "y")
	members, err := r.SMembers(ctx, "s").Result()
	sort.Strings(members)
	must("smembers", strings.Join(members, ""), err, "xy")
	sum, err := r.IncrByFloat(ctx, "f", 0.1).Result()
	must("incrbyfloat", sum, err, 0.1)
}

func main() {
	address := "127.0.0.1:" + os.Args[1]
	smoke(address, 2)
	smoke(address, 3)
	fmt.Printf("go: go-redis %s: ok\n", redis.Version())
}
