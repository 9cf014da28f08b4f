#include "dispatcher/store/redis_internal.h"

/* What a channel is made of, all in one slot of a Cluster:
 *
 *	stentor:{CHANNEL}:meta    hash: epoch, when the log began; top, the last
 *	                          offset given; oldest, a time that no entry is
 *	                          older than; ttl, how old one may get; by, the
 *	                          server's history that it was counted in; eras
 *	stentor:{CHANNEL}:log     stream: id <epoch>-<offset>, t time, r record
 *	stentor:{CHANNEL}:k:KEY   string: "<epoch> <offset> <message id> "
 *	                          "<digest>"
 *
 * Entries keep their ids for the log's life: what `epoch` says is only half of
 * the truth once the log has had another one. Then `eras` says
 *
 *	"<epoch> <the present epoch> <former epoch> <offset> ..."
 *
 * with the newest first. One that begins with another epoch than the log's is
 * of a log before it, and means nothing: a dispatcher of the version before
 * this one, which knows no eras, may have begun it.
 *
 * A position is given once. `by` names the history of the server that counted
 * last; any other than the present one may lack what was counted then. The log
 * goes on behind what it has, in a new epoch. The present history is asked for
 * inside the script: a server can lose its data, and become a master again,
 * while a connection stands (Cluster: two fail-overs). A master's replid is new
 * with each start and each time it is made one.
 *
 *	RUN-REPLID:TERM
 *	              of this run, as a master, from this promotion on. With
 *	              Sentinels TERM counts fail-overs: while another was taken
 *	              for the master this one may never have been demoted. Who
 *	              has not heard of one yet keeps the greater TERM
 *	always:N      of data that a restart can't put back: see redis_durable.c
 *	REPLID        written by the version before: the same, less sure
 *	nothing       the same, with store-replicas: taken for right, for the
 *	              dispatchers of the version before, which run beside ours
 *	              during an upgrade, can't follow new epochs
 *
 * An answer is right only while the log has the position that it tells. The
 * meta outlives the log (REDIS_META_KEEP_MS), so that offsets go on after a
 * channel was quiet for its ttl. Whatever takes the meta away (eviction,
 * FLUSHALL, its own end) starts a new log, whose epoch is greater than what the
 * stream still shows and than any that this dispatcher has seen.
 *
 * Whatever may be refused (memory, type, read-only) is refused at the first
 * write or before it: an error means that nothing was done. Numbers are doubles
 * in Lua: exact to 2^53, printed with %.0f because tostring() has 14 digits.
 */

/* Lua has no means to share functions between scripts. The time; and of a log
 * its present epoch, its former ones, and what `eras` says of a log before. */
#define LUA_COMMON                                                      \
	"local function text(n) return string.format('%.0f', n) end\n"  \
	"local time = redis.call('TIME')\n"                             \
	"local now = time[1] * 1000 + math.floor(time[2] / 1000)\n"     \
	"local function read_eras(id, eras)\n"                          \
	"  if not eras then return id, '', 0 end\n"                     \
	"  local of, epoch, former = eras:match('^(%d+) (%d+)(.*)$')\n" \
	"  if of == id then return epoch, former, 0 end\n"              \
	"  return id, '', tonumber(epoch) or 0\n"                       \
	"end\n"

/* Those that write: ARGV[1] is the epoch floor, ARGV[2] the run, ARGV[3] N of
 * always:N, or "", ARGV[4] the term. What a log is counted by from now on, and
 * whether it may be torn that was counted by `was`. A server that was promoted
 * in this run (it has a second replid) has had another's data. */
#define LUA_HISTORY                                                            \
	"local replid, run, always\n"                                          \
	"local function history(was)\n"                                        \
	"  if not run then\n"                                                  \
	"    local info = redis.call('INFO', 'replication')\n"                 \
	"    local _, at = info:find('master_replid:', 1, true)\n"             \
	"    replid = at and info:sub(at + 1, at + 16) or ''\n"                \
	"    run = ARGV[2] .. '-' .. replid .. ':'\n"                          \
	"    if ARGV[3] ~= '' and"                                             \
	"       info:find('master_replid2:0000000000000000', 1, true) and"     \
	"       redis.call('GET', '" REDIS_DURABLE_KEY "') == ARGV[3] then\n"  \
	"      always = 'always:' .. ARGV[3]\n"                                \
	"    end\n"                                                            \
	"  end\n"                                                              \
	"  local by, good = run .. ARGV[4], not was or was == replid\n"        \
	"  if was and was:sub(1, #run) == run and"                             \
	"     (tonumber(was:sub(#run + 1)) or -1) >= tonumber(ARGV[4]) then\n" \
	"    by, good = was, true\n"                                           \
	"  end\n"                                                              \
	"  by = always or by\n"                                                \
	"  return by, not good and was ~= by\n"                                \
	"end\n"

/* A new epoch, and then the former ones, of a log that has what is up to `top`.
 */
#define LUA_RENEW                                                    \
	"local function renew(epoch, former, top, least)\n"          \
	"  local out, n = ' ' .. epoch .. ' ' .. text(top), 1\n"     \
	"  for e, offset in former:gmatch('(%d+) (%d+)') do\n"       \
	"    if n == " REDIS_ERAS_MAX " then break end\n"            \
	"    n = n + 1\n"                                            \
	"    out = out .. ' ' .. e .. ' ' .."                        \
	"          text(math.min(tonumber(offset), top))\n"          \
	"  end\n"                                                    \
	"  return text(math.max(now, tonumber(ARGV[1]) + 1,"         \
	"                       tonumber(epoch) + 1, least)), out\n" \
	"end\n"

const char redis_script_append[] =
	/* KEYS: meta, log, answer (if there is a key)
	 * ARGV: floor, run, N, term, record, size, ttl ms, message id, digest,
	 *       answer's window ms
	 * Returns epoch and offset, and of a duplicate the message id; `+` is
	 * before it where the log has a new epoch. */
	LUA_COMMON LUA_HISTORY LUA_RENEW
	"local meta, log, answer = KEYS[1], KEYS[2], KEYS[3]\n"
	"local m = redis.call('HMGET', meta, 'epoch', 'top', 'oldest', 'by',"
	"                     'ttl', 'eras')\n"
	"local id, top, oldest = m[1], tonumber(m[2]), tonumber(m[3])\n"
	"local by, torn = history(m[4])\n"
	"local changed, epoch, former, before, renewed = {}\n"
	"local function set(field, value)\n"
	"  changed[#changed + 1] = field\n"
	"  changed[#changed + 1] = value\n"
	"end\n"
	"if id and top then\n"
	"  epoch, former, before = read_eras(id, m[6])\n"
	"  if torn or before >= tonumber(id) then\n"
	"    epoch, former = renew(epoch, former, top, before + 1)\n"
	"    renewed = true\n"
	"    set('eras', id .. ' ' .. epoch .. former)\n"
	"  end\n"
	"end\n"
	"if m[4] ~= by then set('by', by) end\n"
	"local first = answer and epoch and redis.call('GET', answer)\n"
	"if first then\n"
	"  local e, offset, name, digest ="
	"    first:match('^(%d+) (%d+) (%S+) ?(%x*)$')\n"
	"  local n = tonumber(offset)\n"
	"  local valid = e == epoch and n <= top\n"
	"  for was, last in former:gmatch('(%d+) (%d+)') do\n"
	"    valid = valid or was == e and n <= tonumber(last)\n"
	"  end\n"
	"  if valid then\n"
	"    if digest ~= '' and digest ~= ARGV[9] then\n"
	"      return redis.error_reply('EXISTS with another digest')\n"
	"    end\n"
	"    if #changed > 0 then"
	"      redis.call('HSET', meta, unpack(changed))\n"
	"    end\n"
	/* A write, so that a WAIT behind us waits for the first one too. */
	"    redis.call('PEXPIRE', answer,"
	"               math.max(redis.call('PTTL', answer), 1))\n"
	"    return (renewed and '+' or '') .. epoch .. ' ' .. offset .. ' '"
	"           .. name\n"
	"  end\n"
	"end\n"
	"if not epoch then\n"
	"  local least = 0\n"
	"  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]\n"
	"  if last then\n"
	"    least = tonumber(last[1]:match('^%d+')) + 1\n"
	"    redis.call('DEL', log)\n"
	"  end\n"
	"  before = select(3, read_eras('', m[6]))\n"
	"  epoch = renew(id or '0', '', 0, math.max(least, before + 1))\n"
	"  id, top, oldest = epoch, 0, now\n"
	"  set('epoch', epoch)\n"
	"  set('oldest', text(now))\n"
	"end\n"
	"local offset = text(top + 1)\n"
	"redis.call('XADD', log, 'MAXLEN', '=', ARGV[6], id .. '-' .. offset,"
	"           't', text(now), 'r', ARGV[5])\n"
	"local ttl = tonumber(ARGV[7])\n"
	/* The head goes when it is too old: a few at a time. */
	"if not oldest or now - oldest >= ttl then\n"
	"  local head = redis.call('XRANGE', log, '-', '+', 'COUNT', 5)\n"
	"  local keep\n"
	"  for _, entry in ipairs(head) do\n"
	"    keep, oldest = entry[1], tonumber(entry[2][2])\n"
	"    if now - oldest < ttl then break end\n"
	"  end\n"
	"  redis.call('XTRIM', log, 'MINID', '=', keep)\n"
	"  set('oldest', text(oldest))\n"
	"end\n"
	"if m[5] ~= ARGV[7] then set('ttl', ARGV[7]) end\n"
	"redis.call('HSET', meta, 'top', offset, unpack(changed))\n"
	"redis.call('PEXPIRE', log, ttl)\n"
	"redis.call('PEXPIRE', meta,"
	"           text(ttl + math.max(ttl, " REDIS_META_KEEP_MS ")))\n"
	"local place = epoch .. ' ' .. offset\n"
	"if answer then\n"
	"  redis.call('SET', answer, place .. ' ' .. ARGV[8] .. ' ' .. ARGV[9],"
	"             'PX', ARGV[10])\n"
	"end\n"
	"return (renewed and '+' or '') .. place\n";

const char redis_script_read[] =
	/* KEYS: meta, log
	 * ARGV: epoch (0: any), after, records, bytes, latest ("1" or "")
	 * Returns epoch, top, first, former epochs, then offset and record in
	 * turn. The stream is read in pieces so that large records are not all
	 * copied before their bytes are counted. */
	LUA_COMMON
	"local meta, log = KEYS[1], KEYS[2]\n"
	"local m = redis.call('HMGET', meta, 'epoch', 'top', 'eras', 'ttl')\n"
	"local id, top = m[1], tonumber(m[2])\n"
	"if not id or not top then return {text(now), '0', '1', ''} end\n"
	"local epoch, former = read_eras(id, m[3])\n"
	"local function offset_of(entry)\n"
	"  return entry[1]:match('%-(%d+)$')\n"
	"end\n"
	"local function entry_at(offset)\n"
	"  return redis.call('XRANGE', log, id .. '-' .. text(offset), '+',"
	"                    'COUNT', 1)[1]\n"
	"end\n"
	"local function is_old(entry)\n"
	"  return m[4] and now - tonumber(entry[2][2]) >= tonumber(m[4])\n"
	"end\n"
	"local head = entry_at(0)\n"
	/* What is too old goes at the next append: here it is passed over. */
	"if head and is_old(head) then\n"
	"  local low, high = offset_of(head) + 1, top + 1\n"
	"  head = nil\n"
	"  while low < high do\n"
	"    local middle = math.floor((low + high) / 2)\n"
	"    local entry = entry_at(middle)\n"
	"    if entry and is_old(entry) then\n"
	"      low = offset_of(entry) + 1\n"
	"    else\n"
	"      head, high = entry or head, middle\n"
	"    end\n"
	"  end\n"
	"end\n"
	"if not head then return {epoch, m[2], text(top + 1), former} end\n"
	"local out = {epoch, m[2], offset_of(head), former}\n"
	"local after, left = tonumber(ARGV[2]), tonumber(ARGV[3])\n"
	"local bytes, latest = tonumber(ARGV[4]), ARGV[5] == '1'\n"
	"if ARGV[1] ~= '0' and ARGV[1] ~= epoch then return out end\n"
	"if not latest and after >= top then return out end\n"
	"local found = {}\n"
	"local from = head[1]\n"
	"if after >= tonumber(out[3]) then\n"
	"  from = '(' .. id .. '-' .. text(after)\n"
	"end\n"
	"if latest then from = '+' end\n"
	"local piece = 16\n"
	"while left > 0 do\n"
	"  local part\n"
	"  if latest then\n"
	"    part = redis.call('XREVRANGE', log, from, head[1],"
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
	"local start, stop, step = 1, #found, 1\n"
	"if latest then start, stop, step = #found, 1, -1 end\n"
	"for i = start, stop, step do\n"
	"  out[#out + 1], out[#out + 2] = found[i][1], found[i][2]\n"
	"end\n"
	"return out\n";

/* The former epochs of a log, with what somebody who was in epoch `e` knows of
 * more of them: eras_learn_all() in eras.h. */
#define LUA_LEARN                                                              \
	"local function learn(epoch, former, top, e, more)\n"                  \
	"  local list, has, common = {}, {}, 0\n"                              \
	"  local eldest = tonumber(epoch)\n"                                   \
	"  local function add(k, o)\n"                                         \
	"    if has[k] or k >= tonumber(epoch) then return end\n"              \
	"    has[k] = math.min(o, top)\n"                                      \
	"    list[#list + 1] = k\n"                                            \
	"  end\n"                                                              \
	"  for k, o in former:gmatch('(%d+) (%d+)') do\n"                      \
	"    eldest = tonumber(k)\n"                                           \
	"    add(eldest, tonumber(o))\n"                                       \
	"  end\n"                                                              \
	"  for k, o in more:gmatch('(%d+) (%d+)') do\n"                        \
	"    local mine = has[tonumber(k)] or 0\n"                             \
	"    common = math.max(common, math.min(tonumber(o), mine))\n"         \
	"  end\n"                                                              \
	"  if e == tonumber(epoch) then common = top end\n"                    \
	"  common = has[e] or common\n"                                        \
	"  for k, o in more:gmatch('(%d+) (%d+)') do\n"                        \
	"    if tonumber(k) > eldest then\n"                                   \
	"      add(tonumber(k), math.min(tonumber(o), common))\n"              \
	"    end\n"                                                            \
	"  end\n"                                                              \
	"  if common > 0 and e > eldest then add(e, common) end\n"             \
	"  table.sort(list, function(a, b) return a > b end)\n"                \
	"  local out = ''\n"                                                   \
	"  for i = 1, math.min(#list, " REDIS_ERAS_MAX ") do\n"                \
	"    out = out .. ' ' .. text(list[i]) .. ' ' .. text(has[list[i]])\n" \
	"  end\n"                                                              \
	"  return out\n"                                                       \
	"end\n"

const char redis_script_tops[] =
	/* KEYS: metas
	 * ARGV: floor, run, N, term, then for each "epoch offset" of what is
	 *       known, with epochs before it behind that, or "".
	 * Returns the time, then for each "epoch top", with former epochs and
	 * offsets behind it, or ""; `+` is before it where the log has gone
	 * back, or may have: who comes with a place that was lost is to find
	 * its epoch among the former ones. Writes only there. */
	LUA_COMMON LUA_HISTORY LUA_RENEW LUA_LEARN
	"local out = {text(now)}\n"
	"for i, meta in ipairs(KEYS) do\n"
	"  local m = redis.call('HMGET', meta, 'epoch', 'top', 'eras', 'by')\n"
	"  local id, top = m[1], tonumber(m[2])\n"
	"  if id and top then\n"
	"    local epoch, former, before = read_eras(id, m[3])\n"
	"    local sign = ''\n"
	"    local e, offset, more = ARGV[4 + i]:match('^(%d+) (%d+)(.*)$')\n"
	"    local by, torn = history(m[4])\n"
	"    e = tonumber(e) or 0\n"
	"    if torn or e > tonumber(epoch) or"
	"       e == tonumber(epoch) and tonumber(offset) > top then\n"
	"      epoch, former = renew(epoch, former, top,"
	"                            math.max(before, e) + 1)\n"
	"      sign = '+'\n"
	"      redis.call('HSET', meta, 'by', by,"
	"                 'eras', id .. ' ' .. epoch .. former)\n"
	"    end\n"
	"    if more and more ~= '' then\n"
	"      local all = learn(epoch, former, top, e, more)\n"
	"      if all ~= former then\n"
	"        former = all\n"
	"        redis.call('HSET', meta, 'eras', id .. ' ' .. epoch .. "
	"former)\n"
	"      end\n"
	"    end\n"
	"    out[1 + i] = sign .. epoch .. ' ' .. m[2] .. former\n"
	"  else\n"
	"    out[1 + i] = ''\n"
	"  end\n"
	"end\n"
	"return out\n";
