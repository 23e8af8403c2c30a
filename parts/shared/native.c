/*
 * The two loops that move every line. They hold no state but what they are given, and decide nothing but whether
 * a line is plain: native.ts says what each function does. There are no headers on the user's machine, so the
 * constants are Linux's own numbers, and Bun defines POLL, RECV and so on as the addresses of these functions
 * (man 2).
 */
struct pollfd {
	int fd;
	short events, revents;
};
#define poll ((int (*)(struct pollfd *, unsigned long, int))POLL)
#define recv ((long (*)(int, void *, unsigned long, int))RECV)
#define send ((long (*)(int, const void *, unsigned long, int))SEND)
#define setsockopt ((int (*)(int, int, int, const void *, unsigned))SETSOCKOPT)
#define sendmsg ((long (*)(int, const struct msghdr *, int))SENDMSG)
#define recvmsg ((long (*)(int, struct msghdr *, int))RECVMSG)
#define errno (*((int *(*)(void))ERRNO)())

enum { POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 16, POLLRDHUP = 0x2000 };
enum { MSG_PEEK = 2, MSG_DONTWAIT = 0x40, MSG_NOSIGNAL = 0x4000 };
enum { SOL_SOCKET = 1, SO_RCVLOWAT = 18, SO_SNDTIMEO = 21 };
enum { EINTR = 4, EAGAIN = 11, EPIPE = 32 };

/* What relay() returns, if not a number of bytes; native.ts has the same. */
enum { AGAIN = 0, TURN = -1, ENDED = -2, RESET = -3, TORN = -4, HUNG_UP = -5, GONE = -6 };

enum { SOON = 100 /* ms */, MAX_TURNS = 1000, MAX_TURNS_SAID = 50 /* then TypeScript counts what was said */ };
/*
 * So many lines, with the longest of names, are less than what a socket pair has room for when it counts as
 * writable (three quarters of 208 KiB): a worker never holds lines that it cannot say.
 */
enum { MAX_LINES = 500 };
enum { IAC = -1 /* a signed 255: telnet's commands begin with it, and UTF-8 does not have it */ };

/* Between two calls, TypeScript sees and sets this as an Int32Array. */
struct relay {
	int server, client, control; /* descriptors; a negative one is not watched */
	int lines;                   /* may be taken from the client now */
	int taken;                   /* were taken by this call */
	int name;                    /* bytes of what goes before a line, at up[size]; 0: nothing is said here */
	int said;                    /* bytes that this call has said */
	int block, sent;             /* bytes of the last block of them, at up[size], and how many the server took */
	int partial;                 /* bytes of a line without its end that may stay in the client's socket */
	int torn;                    /* the beginning of a line was taken, and its end not yet, which TypeScript knows */
	int watermark;               /* bytes that the client's socket must hold before poll reports it */
	int from, to;                /* down[from] to down[to - 1] is what the client has not taken */
	int left;                    /* the client is gone; what it has said may still be read */
	int special;                 /* what was taken last may have CR, or a command of telnet */
	int holds;                   /* what was taken last may not have been said yet */
	int broken;                  /* send() has got the error of a connection that did not end in order */
};

static void watermark(struct relay *r, int bytes)
{
	if (bytes != r->watermark)
		setsockopt(r->client, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
	r->watermark = bytes;
}

/*
 * Notes at the client's socket whether this process holds lines of the client: should it die, the server finds
 * the note, and tells the client. Nobody waits in send(), so that its timeout is free to carry it.
 */
static void note(struct relay *r, int holds)
{
	struct {
		long s, us;
	} timeout = {holds, 0};
	if (holds != r->holds)
		setsockopt(r->client, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
	r->holds = holds;
}

int say(int server, const char *block, int size)
{
	for (int sent = 0; sent < size;) {
		struct pollfd room = {server, POLLOUT, 0};
		int taken = send(server, block + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (taken > 0)
			sent += taken;
		else if (poll(&room, 1, -1) > 0 && room.revents & (POLLERR | POLLHUP))
			return sent;
	}
	return size;
}

/* Says plain lines behind the name, with which the block begins already; gives whether all of them were taken. */
static int say_plain(struct relay *r, const signed char *lines, int size, signed char *block)
{
	r->block = 0;
	for (int at = 0; at < size; at++) {
		if (at == 0 || lines[at - 1] == '\n')
			for (int i = 0; i < r->name; i++)
				block[r->block++] = block[i];
		block[r->block++] = lines[at];
	}
	r->sent = say(r->server, (char *)block, r->block);
	r->said += r->sent;
	return r->sent == r->block;
}

/*
 * Takes whole lines out of the client's socket. The beginning of a line stays there, so that it does not die
 * with this process. It is taken if it is too long for a line, or if the client can send no more: because it
 * has ended, or because its window is closed (a few bytes can keep the memory of a large segment), which shows
 * when the kernel reports the socket again and there is no more in it. And it is taken if it has a command of
 * telnet, because that may come without a line. Of CR LF or CR NUL, the second byte may still be on its way.
 *
 * Lines are plain if all that was taken is printable ASCII, and none is empty, too long or a command: then
 * TypeScript would only put the name before them, and they are said here.
 */
static int take(struct relay *r, signed char *up, int size, int ended)
{
	int held = recv(r->client, up, size, MSG_PEEK | MSG_DONTWAIT);
	int end = 0, lines = 0, command = 0, plain = r->name > 0 && !r->torn;
	r->special = 0;
	if (held == 0)
		return r->broken ? RESET : ENDED;
	if (held < 0)
		return ended ? RESET : AGAIN;
	for (int at = 0; at < held && lines < MAX_LINES && r->taken + lines < r->lines; at++) {
		if ((unsigned char)(up[at] - ' ') < 0x7f - ' ')
			continue;
		if (up[at] == '\n' || (up[at] == '\r' && (at + 1 == held || up[at + 1] != '\n'))) {
			plain &= up[at] == '\n' && at > end && up[end] != '/' && at - end < r->partial;
			lines++, end = at + 1;
		} else
			plain = 0;
		if (up[at] < 0 && end > size / 3)
			break; /* what is no UTF-8 becomes three times as long */
		command |= up[at] == IAC;
		r->special |= up[at] == IAC || up[at] == '\r';
	}
	if (end == 0 && !command && !ended && held >= r->watermark && held <= r->partial)
		return watermark(r, held + 1), AGAIN;
	watermark(r, 1);
	if (end == 0 && !r->torn)
		return r->torn = 1, TORN; /* TypeScript reports it, and calls again */
	note(r, end > 0);
	held = recv(r->client, up, end > 0 ? end : held, MSG_DONTWAIT);
	r->taken += lines;
	if (held != end || !plain)
		return held;
	int whole = say_plain(r, up, held, up + size);
	note(r, 0);
	return whole ? AGAIN : GONE;
}

int relay(struct relay *r, char *down, signed char *up, int size, int ms)
{
	int jammed = 0; /* the server's socket is so full that lines stay in the client's */
	r->taken = r->said = r->block = r->sent = 0;
	if (r->watermark == 0) { /* the first call: a dead worker may have left its watermark and its note */
		struct pollfd client = {r->client, 0, 0};
		watermark(r, 1);
		r->holds = 1;
		poll(&client, 1, 0);
		r->broken = client.revents == POLLHUP; /* without POLLERR: that worker has got the error */
	}
	note(r, 0);
	for (int turns = 0; turns < (r->said ? MAX_TURNS_SAID : MAX_TURNS); turns++, ms = SOON) {
		int full = r->from < r->to, listens = r->lines > r->taken && !jammed, got;
		struct pollfd on[3] = {
			{r->server, (full ? 0 : POLLIN) | (jammed ? POLLOUT : 0), 0},
			{r->client, (listens ? POLLIN | POLLRDHUP : 0) | (full ? POLLOUT : 0), 0},
			{r->control, POLLIN, 0},
		};
		/* Without events it is left out: poll would report that the client is gone, again and again. */
		if (on[1].events == 0)
			on[1].fd = -1;
		if (poll(on, 3, ms) <= 0 || on[2].revents)
			return TURN;
		if (on[0].revents & (POLLERR | POLLHUP))
			return GONE; /* even if there is more to read */
		if (on[1].revents & (POLLERR | POLLHUP))
			r->left = 1;
		if (on[0].revents & ~POLLOUT) {
			got = recv(r->server, down, size, MSG_DONTWAIT);
			if (got == 0)
				return HUNG_UP;
			if (got > 0)
				r->from = 0, r->to = got;
		}
		if (on[0].revents & POLLOUT)
			jammed = 0;
		if (r->from < r->to) {
			got = send(r->client, down + r->from, r->to - r->from, MSG_DONTWAIT | MSG_NOSIGNAL);
			if (got > 0)
				r->from += got;
			else if (errno != EAGAIN && errno != EINTR && errno != EPIPE)
				r->broken = 1; /* only one call gets the error; recv() will report an end in order */
			if (got <= 0 && on[1].revents & (POLLERR | POLLHUP))
				r->from = r->to; /* the client is gone, and with it what was on its way */
		}
		if (on[1].revents & ~POLLOUT && listens) {
			struct pollfd room = {r->server, POLLOUT, 0};
			jammed = r->server >= 0 && poll(&room, 1, 0) == 0;
			if (!jammed && (got = take(r, up, size, on[1].revents & (POLLRDHUP | POLLHUP | POLLERR))) != AGAIN)
				return got;
		}
		if (r->lines <= r->taken || ms < SOON)
			return TURN; /* TypeScript waits for its time to come: what comes down must not put that off */
	}
	return TURN;
}

void broadcast(const int *receivers, int count, const char *block, int size, int *taken)
{
	for (int i = 0; i < count; i++) {
		int sent = receivers[i] < 0 ? 0 : send(receivers[i], block, size, MSG_DONTWAIT | MSG_NOSIGNAL);
		taken[i] = sent < 0 ? 0 : sent;
	}
}

/* What sendmsg and recvmsg take: one byte of data, and beside it one descriptor. */
struct msghdr {
	void *name;
	unsigned namelen;
	struct iovec {
		void *base;
		unsigned long len;
	} *data;
	unsigned long blocks;
	struct beside {
		unsigned long len;
		int level, type, fd;
	} *beside;
	unsigned long besidelen;
	int flags;
};
enum { SCM_RIGHTS = 1, BESIDE = 20 /* bytes of a struct beside */, MSG_CMSG_CLOEXEC = 0x40000000 };

int pass(int via, int fd)
{
	struct iovec data = {"+", 1};
	struct beside beside = {BESIDE, SOL_SOCKET, SCM_RIGHTS, fd};
	struct msghdr message = {0, 0, &data, 1, &beside, BESIDE, 0};
	return sendmsg(via, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
}

int accept_passed(int via)
{
	char byte;
	struct iovec data = {&byte, 1};
	struct beside beside = {0};
	struct msghdr message = {0, 0, &data, 1, &beside, BESIDE, 0};
	if (recvmsg(via, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
		return -1;
	return beside.len == BESIDE && beside.level == SOL_SOCKET && beside.type == SCM_RIGHTS ? beside.fd : -2;
}
