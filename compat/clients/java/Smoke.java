import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.HashSet;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.RedisProtocol;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.params.ScanParams;
import redis.clients.jedis.params.SetParams;

/** Jedis over RESP2 and RESP3: the server must look like Redis to it. */
public class Smoke {
    static void must(String what, Object got, Object want) {
        if (!got.equals(want)) throw new AssertionError(what + ": got " + got + ", want " + want);
    }

    static void smoke(int port, RedisProtocol protocol) {
        var config = DefaultJedisClientConfig.builder().protocol(protocol).build();
        try (Jedis r = new Jedis(new HostAndPort("127.0.0.1", port), config)) {
            r.flushAll();
            must("set", r.set("k", "v", SetParams.setParams().ex(100).nx()), "OK");
            must("get", r.get("k"), "v");
            must("setnx", r.setnx("k", "w"), 0L);
            must("mset", r.mset("a", "1", "b", "2"), "OK");
            must("mget", r.mget("a", "b"), List.of("1", "2"));
            var pipeline = r.pipelined();
            for (int i = 0; i < 500; i++) pipeline.set("p:" + i, "" + i);
            pipeline.sync();
            Set<String> seen = new HashSet<>();
            String cursor = ScanParams.SCAN_POINTER_START;
            do {
                var step = r.scan(cursor, new ScanParams().match("p:*").count(20));
                seen.addAll(step.getResult());
                cursor = step.getCursor();
            } while (!cursor.equals(ScanParams.SCAN_POINTER_START));
            must("scan", seen.size(), 500);
            var transaction = r.multi();
            transaction.incr("n");
            transaction.incr("n");
            must("exec", transaction.exec(), List.of(1L, 2L));
            r.hset("h", Map.of("f", "1", "g", "2"));
            must("hgetall", r.hgetAll("h"), Map.of("f", "1", "g", "2"));
            r.sadd("s", "x", "y");
            must("smembers", r.smembers("s"), Set.of("x", "y"));
            r.zadd("z", Map.of("half", 0.5, "one", 1.0));
            must("zrange", r.zrangeWithScores("z", 0, -1).get(0).getScore(), 0.5);
            r.rpush("l", "a", "b", "c");
            must("lrange", r.lrange("l", 0, -1), List.of("a", "b", "c"));
            try {
                r.lpush("k", "x");
                throw new AssertionError("no WRONGTYPE");
            } catch (JedisDataException e) {
                must("wrongtype", e.getMessage().startsWith("WRONGTYPE"), true);
            }
        }
    }

    public static void main(String[] args) {
        int port = Integer.parseInt(args[0]);
        smoke(port, RedisProtocol.RESP2);
        smoke(port, RedisProtocol.RESP3);
        System.out.println("java: Jedis: ok");
    }
}
