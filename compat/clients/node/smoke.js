// ioredis (RESP2) and node-redis (RESP2 and RESP3): the server must look like Redis to both.
const assert = require('node:assert/strict');
const Redis = require('ioredis');
const { createClient } = require('redis');
const port = Number(process.argv[2]);

async function smokeIoredis() {
  const r = new Redis({ port, host: '127.0.0.1' });
  await r.flushall();
  assert.equal(await r.set('k', 'v', 'EX', 100, 'NX'), 'OK');
  assert.equal(await r.get('k'), 'v');
  assert.equal(await r.set('k', 'w', 'NX'), null);
  const bytes = Buffer.from([0, 255, 13, 10]);
  await r.set(bytes, bytes);
  assert.deepEqual(await r.getBuffer(bytes), bytes);
  const replies = await r.pipeline().incr('n').incrby('n', 41).lpush('k', 'x').exec();
  assert.equal(replies[1][1], 42);
  assert.match(replies[2][0].message, /^WRONGTYPE/);
  assert.deepEqual(await r.multi().set('a', 1).incr('a').exec(), [[null, 'OK'], [null, 2]]);
  await r.hset('h', { f: 1, g: 2 });
  assert.deepEqual(await r.hgetall('h'), { f: '1', g: '2' });
  await r.zadd('z', 1, 'one', 0.5, 'half');
  assert.deepEqual(await r.zrange('z', 0, -1, 'WITHSCORES'), ['half', '0.5', 'one', '1']);
  const many = Array.from({ length: 500 }, (_, i) => r.set(`p:${i}`, i));
  await Promise.all(many);
  const seen = new Set();
  for await (const keys of r.scanStream({ match: 'p:*', count: 20 })) keys.forEach((k) => seen.add(k));
  assert.equal(seen.size, 500);
  await r.quit();
}

async function smokeNodeRedis(RESP) {
  const r = createClient({ socket: { port, host: '127.0.0.1' }, RESP });
  await r.connect();
  await r.flushAll();
  assert.equal(await r.set('k', 'v', { EX: 100 }), 'OK');
  assert.equal(await r.get('k'), 'v');
  const [first, second] = await Promise.all([r.incr('n'), r.incr('n')]);
  assert.deepEqual([first, second], [1, 2]);
  await r.hSet('h', { f: '1', g: '2' });
  assert.deepEqual({ ...(await r.hGetAll('h')) }, { f: '1', g: '2' });
  await r.zAdd('z', [{ score: 0.5, value: 'half' }, { score: 1, value: 'one' }]);
  assert.deepEqual((await r.zRangeWithScores('z', 0, -1)).map((m) => [m.value, m.score]), [['half', 0.5], ['one', 1]]);
  await r.sAdd('s', ['x', 'y']);
  assert.deepEqual([...(await r.sMembers('s'))].sort(), ['x', 'y']);
  assert.deepEqual(await r.multi().set('a', '1').incr('a').exec(), ['OK', 2]);
  await assert.rejects(r.lPush('k', 'x'), /WRONGTYPE/);
  await r.close();
}

(async () => {
  await smokeIoredis();
  await smokeNodeRedis(2);
  await smokeNodeRedis(3);
  console.log(`node: ioredis ${require('ioredis/package.json').version}, node-redis ${require('redis/package.json').version}: ok`);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
