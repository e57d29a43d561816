package gateway

import "bytes"

// scanner follows HTTP/1 requests in the bytes of one connection, in constant memory. It has to know where each head
// begins, so it knows where bodies end; where it could see that otherwise than net/http does, it lets nothing through
// that net/http would go on from:
//
//   - A head that it refuses gets a NUL where it is wrong, and so a 400 from net/http, in its turn after what was asked
//     before, and the end of the connection.
//   - After a body that it does not understand nothing more is read.
type scanner struct {
	state   scanState
	matched int // bytes of the HTTP/2 preface

	start    [8]byte  // of the request line
	end      [9]byte  // of the request line
	line     int      // bytes of this line
	name     [17]byte // of the header, in lower case
	modern   bool     // HTTP/1.1
	upgrade  bool     // another protocol is asked for
	connect  bool
	sized    bool // has Content-Length
	digits   int
	chunked  bool // has Transfer-Encoding
	left     int64
	overhead int64  // of chunks, as net/http counts it
	why      string // what was refused
}

type scanState uint8

const (
	scanPreface scanState = iota
	scanBetween           // requests
	scanRequestLine
	scanLineStart
	scanHeadCR
	scanName
	scanValue
	scanLength
	scanLengthEnd
	scanLengthCR
	scanBody
	scanChunkSize
	scanChunkExt
	scanChunkBlank
	scanChunkLF
	scanChunk
	scanChunkEndCR
	scanChunkEndLF
	scanTrailerStart
	scanTrailerName
	scanTrailerValue
	scanTrailerLF
	scanTrailersLF
	scanTunnel  // what follows a CONNECT: nothing, until a tunnel is granted
	scanNothing // the rest is no concern of the scanner's
	scanBroken
)

const (
	preface      = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	maxChunkLine = 1 << 10
	maxTrailer   = 2 << 10 // net/http takes 4 KiB
	maxOverhead  = 8 << 10 // net/http takes 16 KiB
)

const (
	framedTwice = "both Content-Length and Transfer-Encoding, or one of them twice"
	noLength    = "a Content-Length that is no number"
)

// scan looks at what was read, may change a byte of it, and returns how much of it may be passed on. Less than all is
// the end: nothing of what follows may be.
func (s *scanner) scan(p []byte) int {
	for i := 0; i < len(p); {
		switch s.state {
		case scanNothing:
			return len(p)
		case scanPreface:
			if p[i] != preface[s.matched] {
				s.state = scanBetween
				s.scan([]byte(preface[:s.matched]))
				continue
			}
			if s.matched++; s.matched == len(preface) {
				s.state = scanNothing
			}
			i++
		case scanBetween,
			scanRequestLine,
			scanLineStart,
			scanHeadCR,
			scanName,
			scanValue,
			scanLength,
			scanLengthEnd,
			scanLengthCR:
			i = s.head(p, i)
		case scanBody:
			n := min(s.left, int64(len(p)-i))
			i += int(n)
			if s.left -= n; s.left == 0 {
				s.next()
			}
		case scanChunk:
			n := min(s.left, int64(len(p)-i))
			i += int(n)
			if s.left -= n; s.left == 0 {
				s.state = scanChunkEndCR
			}
		case scanTunnel, scanBroken:
			s.state = scanBroken
			return i
		default:
			if !s.chunk(p[i]) {
				s.state = scanBroken
				return i
			}
			i++
		}
	}
	return len(p)
}

// next expects another request.
func (s *scanner) next() { *s = scanner{state: scanBetween} }

// refuse makes p[i] what net/http answers with 400, and keeps why.
func (s *scanner) refuse(p []byte, i int, why string) int {
	p[i] = 0
	s.state, s.why = scanNothing, why
	return i + 1
}

// head goes on in a head from p[i], and returns how far it came.
func (s *scanner) head(p []byte, i int) int {
	c := p[i]
	switch s.state {
	case scanBetween: // net/http skips empty lines after a POST, and refuses them elsewhere
		if c != '\r' && c != '\n' {
			*s = scanner{state: scanRequestLine}
			return i
		}
	case scanRequestLine:
		n := bytes.IndexByte(p[i:], '\n')
		part := p[i:]
		if n >= 0 {
			part = p[i : i+n]
		}
		s.requestLine(part)
		if n < 0 {
			return len(p)
		}
		line := bytes.TrimSuffix(s.end[len(s.end)-min(s.line, len(s.end)):], []byte("\r"))
		s.modern = bytes.HasSuffix(line, []byte("HTTP/1.1"))
		s.connect = string(s.start[:]) == "CONNECT "
		s.state = scanLineStart
		return i + n + 1
	case scanLineStart:
		switch c {
		case '\n':
			s.endHead()
		case '\r':
			s.state = scanHeadCR
		case ' ', '\t': // RFC 9112 wants them refused or replaced
			return s.refuse(p, i, "a folded header line")
		default:
			s.state, s.line = scanName, 0
			return i
		}
	case scanHeadCR:
		if c != '\n' {
			return s.refuse(p, i, "a CR without LF")
		}
		s.endHead()
	case scanName:
		return s.headerName(p, i)
	case scanValue:
		n := bytes.IndexByte(p[i:], '\n')
		if n < 0 {
			return len(p)
		}
		s.state = scanLineStart
		return i + n + 1
	default:
		return s.contentLength(p, i)
	}
	return i + 1
}

// requestLine keeps the beginning and the end of the line.
func (s *scanner) requestLine(part []byte) {
	if s.line < len(s.start) {
		copy(s.start[s.line:], part)
	}
	s.line += len(part)
	if len(part) >= len(s.end) {
		copy(s.end[:], part[len(part)-len(s.end):])
		return
	}
	n := copy(s.end[:], s.end[len(part):])
	copy(s.end[n:], part)
}

// headerName reads up to the colon.
func (s *scanner) headerName(p []byte, i int) int {
	for ; i < len(p); i++ {
		c := p[i]
		switch c {
		case ':':
			return s.header(p, i)
		case '\n': // net/http refuses it
			s.state = scanLineStart
			return i + 1
		}
		if s.line < len(s.name) {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			s.name[s.line] = c
		}
		s.line++
	}
	return i
}

// header knows a header's name; its colon is p[i].
func (s *scanner) header(p []byte, i int) int {
	s.state = scanValue
	if s.line > len(s.name) {
		return i + 1
	}
	switch string(s.name[:s.line]) {
	case "content-length":
		if s.sized || s.chunked {
			return s.refuse(p, i, framedTwice)
		}
		s.sized, s.state = true, scanLength
	case "transfer-encoding": // net/http takes no other value than "chunked"
		if s.sized || s.chunked {
			return s.refuse(p, i, framedTwice)
		}
		if !s.modern {
			return s.refuse(p, i, "Transfer-Encoding before HTTP/1.1")
		}
		s.chunked = true
	case "upgrade":
		s.upgrade = true
	}
	return i + 1
}

// contentLength reads digits, with blanks around them.
func (s *scanner) contentLength(p []byte, i int) int {
	c := p[i]
	switch {
	case c == '\n': // an empty length is refused by net/http
		s.state = scanLineStart
	case s.state == scanLengthCR:
		return s.refuse(p, i, noLength)
	case c == '\r':
		s.state = scanLengthCR
	case c == ' ' || c == '\t':
		if s.digits > 0 {
			s.state = scanLengthEnd
		}
	case s.state == scanLength && '0' <= c && c <= '9' && s.digits < 18:
		s.left = s.left*10 + int64(c-'0')
		s.digits++
	default:
		return s.refuse(p, i, noLength)
	}
	return i + 1
}

func (s *scanner) endHead() {
	switch {
	case s.chunked:
		s.state, s.line, s.digits = scanChunkSize, 0, 0
	case s.left > 0:
		s.state = scanBody
	default:
		upgrade, connect := s.upgrade, s.connect
		s.next()
		s.upgrade, s.connect = upgrade, connect // until something else is asked
		if connect {
			s.state = scanTunnel
		}
	}
}

// chunk reads a byte of what surrounds chunks, and reports whether it may stand there.
func (s *scanner) chunk(c byte) bool {
	s.line++
	switch s.state {
	case scanChunkSize:
		v, hex := unhex(c)
		switch {
		case hex:
			s.left = s.left<<4 | int64(v)
			s.digits++
			return s.digits < 16
		case s.digits == 0:
			return false
		}
		switch c {
		case '\r':
			s.state = scanChunkLF
		case ';':
			s.state = scanChunkExt
		default:
			s.state = scanChunkBlank
			return c == ' ' || c == '\t'
		}
		return true
	case scanChunkBlank:
		if c == '\r' {
			s.state = scanChunkLF
		}
		return (c == '\r' || c == ' ' || c == '\t') && s.line < maxChunkLine
	case scanChunkExt:
		if c == '\r' {
			s.state = scanChunkLF
		}
		return c != '\n' && s.line < maxChunkLine
	case scanChunkLF:
		s.overhead = max(0, s.overhead+int64(s.line)-16-2*s.left)
		s.line, s.digits = 0, 0
		if s.state = scanChunk; s.left == 0 {
			s.state = scanTrailerStart
		}
		return c == '\n' && s.overhead < maxOverhead
	case scanChunkEndCR:
		s.state = scanChunkEndLF
		return c == '\r'
	case scanChunkEndLF:
		s.state, s.line = scanChunkSize, 0
		return c == '\n'
	}
	return s.trailer(c) && s.line < maxTrailer
}

func (s *scanner) trailer(c byte) bool {
	switch s.state {
	case scanTrailerStart:
		s.state = scanTrailerName
		if c == '\r' {
			s.state = scanTrailersLF
		}
		return c > ' ' && c != ':' || c == '\r'
	case scanTrailerName:
		if c == ':' {
			s.state = scanTrailerValue
		}
		return c > ' '
	case scanTrailerValue:
		if c == '\r' {
			s.state = scanTrailerLF
		}
		return c != '\n'
	case scanTrailerLF:
		s.state = scanTrailerStart
		return c == '\n'
	default: // scanTrailersLF
		s.next()
		return c == '\n'
	}
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
