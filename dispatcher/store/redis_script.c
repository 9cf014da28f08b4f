#include "dispatcher/store/redis_internal.h"

/* What a channel is made of, all in one slot of a Cluster:
 *
 *	stentor:{CHANNEL}:meta    hash: epoch; top, the last offset given;
 *	                          oldest, a time that no entry is older than;
 *	                          by, the replication history it was counted in
 *	stentor:{CHANNEL}:log     stream: id <epoch>-<offset>, t time, r record
 *	stentor:{CHANNEL}:k:KEY   string: "<epoch> <offset> <message id>"
 *
 * The meta outlives the log (REDIS_META_KEEP_MS), so that offsets go on after a
 * channel was quiet for its ttl. Whatever takes the meta away (eviction,
 * FLUSHALL, its own end) starts a new epoch, greater than what the log still
 * shows and than any that this dispatcher has seen.
 *
 * Whatever may be refused (memory, type, read-only) is refused at XADD or
 * before it: an error means that nothing was appended. Numbers are doubles in
 * Lua: exact to 2^53, printed with %.0f because tostring() has 14 digits.
 */
const char redis_script_append[] =
	/* KEYS: meta, log, answer (if there is a key)
	 * ARGV: record, size, ttl ms, epoch floor, history, former history,
	 *       message id, answer's window ms */
	"local meta, log, answer = KEYS[1], KEYS[2], KEYS[3]\n"
	"if answer then\n"
	"  local first = redis.call('GET', answer)\n"
	"  if first then\n"
	/* A write, so that a WAIT behind us waits for the first one too. */
	"    redis.call('PEXPIRE', answer,"
	"               math.max(redis.call('PTTL', answer), 1))\n"
	"    return first\n"
	"  end\n"
	"end\n"
	"local time = redis.call('TIME')\n"
	"local now = time[1] * 1000 + math.floor(time[2] / 1000)\n"
	"local m = redis.call('HMGET', meta, 'epoch', 'top', 'oldest', 'by')\n"
	"local epoch, top = m[1], tonumber(m[2])\n"
	"local oldest = tonumber(m[3])\n"
	"local changed = {}\n"
	/* Counted by a master whose last appends this one may have missed. */
	"local torn = m[4] and m[4] == ARGV[6]\n"
	"if not epoch or not top or torn then\n"
	"  local least = math.max(now, tonumber(ARGV[4]) + 1)\n"
	"  if epoch then least = math.max(least, tonumber(epoch) + 1) end\n"
	"  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]\n"
	"  if last then\n"
	"    least = math.max(least, tonumber(last[1]:match('^%d+')) + 1)\n"
	"    redis.call('DEL', log)\n"
	"  end\n"
	"  epoch, top, oldest = string.format('%.0f', least), 0, now\n"
	"  changed = {'epoch', epoch, 'oldest', now}\n"
	"end\n"
	"local offset = string.format('%.0f', top + 1)\n"
	"redis.call('XADD', log, 'MAXLEN', '=', ARGV[2], epoch .. '-' .. "
	"offset,"
	"           't', string.format('%.0f', now), 'r', ARGV[1])\n"
	"local ttl = tonumber(ARGV[3])\n"
	/* The head goes when it is too old: a few at a time. */
	"if not oldest or now - oldest > ttl then\n"
	"  local head = redis.call('XRANGE', log, '-', '+', 'COUNT', 5)\n"
	"  local keep\n"
	"  for _, entry in ipairs(head) do\n"
	"    keep, oldest = entry[1], tonumber(entry[2][2])\n"
	"    if now - oldest <= ttl then break end\n"
	"  end\n"
	"  redis.call('XTRIM', log, 'MINID', '=', keep)\n"
	"  changed[#changed + 1] = 'oldest'\n"
	"  changed[#changed + 1] = string.format('%.0f', oldest)\n"
	"end\n"
	"if ARGV[5] ~= '' and m[4] ~= ARGV[5] then\n"
	"  changed[#changed + 1] = 'by'\n"
	"  changed[#changed + 1] = ARGV[5]\n"
	"end\n"
	"redis.call('HSET', meta, 'top', offset, unpack(changed))\n"
	"redis.call('PEXPIRE', log, ttl)\n"
	"redis.call('PEXPIRE', meta, string.format('%.0f',"
	"           ttl + math.max(ttl, " REDIS_META_KEEP_MS ")))\n"
	"local place = epoch .. ' ' .. offset\n"
	"if answer then\n"
	"  redis.call('SET', answer, place .. ' ' .. ARGV[7], 'PX', ARGV[8])\n"
	"end\n"
	"return place\n";

const char redis_script_read[] =
	/* KEYS: meta, log
	 * ARGV: epoch (0: any), after, records, bytes, latest ("1" or "")
	 * Returns epoch, top, first, then offset and record in turn. The
	 * stream is read in pieces so that large records are not all copied
	 * before their bytes are counted. */
	"local meta, log = KEYS[1], KEYS[2]\n"
	"local m = redis.call('HMGET', meta, 'epoch', 'top')\n"
	"local epoch, top = m[1], m[2]\n"
	"if not epoch or not top then\n"
	"  local time = redis.call('TIME')\n"
	"  epoch = string.format('%.0f', time[1] * 1000 +"
	"                        math.floor(time[2] / 1000))\n"
	"  return {epoch, '0', '1'}\n"
	"end\n"
	"local function offset_of(entry)\n"
	"  return entry[1]:match('%-(%d+)$')\n"
	"end\n"
	"local head = redis.call('XRANGE', log, epoch .. '-0', '+',"
	"                        'COUNT', 1)[1]\n"
	"if not head then\n"
	"  return {epoch, top, string.format('%.0f', top + 1)}\n"
	"end\n"
	"local out = {epoch, top, offset_of(head)}\n"
	"local after, left = tonumber(ARGV[2]), tonumber(ARGV[3])\n"
	"local bytes, latest = tonumber(ARGV[4]), ARGV[5] == '1'\n"
	"if ARGV[1] ~= '0' and ARGV[1] ~= epoch then return out end\n"
	"if not latest and after >= tonumber(top) then return out end\n"
	"local found = {}\n"
	"local from = '(' .. epoch .. '-' .. string.format('%.0f', after)\n"
	"if latest then from = '+' end\n"
	"local piece = 16\n"
	"while left > 0 do\n"
	"  local part\n"
	"  if latest then\n"
	"    part = redis.call('XREVRANGE', log, from, epoch .. '-0',"
	"                      'COUNT', math.min(left, piece))\n"
	"  else\n"
	"    part = redis.call('XRANGE', log, from, '+',"
	"                      'COUNT', math.min(left, piece))\n"
	"  end\n"
	"  for _, entry in ipairs(part) do\n"
	"    local record = entry[2][4]\n"
	"    if #found > 0 and #record > bytes then left = 0; break end\n"
	"    bytes, left = bytes - #record, left - 1\n"
	"    found[#found + 1] = {offset_of(entry), record}\n"
	"    from = '(' .. entry[1]\n"
	"  end\n"
	"  if #part < piece then break end\n"
	"end\n"
	"local first, last, step = 1, #found, 1\n"
	"if latest then first, last, step = #found, 1, -1 end\n"
	"for i = first, last, step do\n"
	"  out[#out + 1], out[#out + 2] = found[i][1], found[i][2]\n"
	"end\n"
	"return out\n";
