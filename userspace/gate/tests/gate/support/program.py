"""Attaches an eBPF program of somebody else's to a cgroup, until it is ended.

usage: program.py CGROUP balancer VIRTUAL BACKEND   rewrites the destination of connect(2)
       program.py CGROUP filter                     looks at packets that leave"""
import ctypes, os, platform, socket, struct, sys, time

LOAD, ATTACH, ALLOW_MULTI = 5, 8, 2
SKB, SOCK_ADDR = 8, 18
EGRESS, CONNECT4 = 1, 10
NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)

def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = libc.syscall(NUMBER, command, buffer, 128)
    if result < 0:
        sys.exit(f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result

def instruction(code, to=0, source=0, offset=0, number=0):
    return struct.pack("<BBhi", code, to | source << 4, offset, number)

def address(text):
    return struct.unpack("<i", socket.inet_aton(text))[0]

folder, kind = sys.argv[1:3]
program = b""
if kind == "balancer":
    program += instruction(0x61, to=2, source=1, offset=4)  # r2 = ctx->user_ip4
    program += instruction(0x55, to=2, offset=2, number=address(sys.argv[3]))  # another one: two on
    program += instruction(0xB4, to=3, number=address(sys.argv[4]))
    program += instruction(0x63, to=1, source=3, offset=4)  # ctx->user_ip4 = r3
program += instruction(0xB7, number=1) + instruction(0x95)  # return 1
code, licence = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
of_type, at = (SOCK_ADDR, CONNECT4) if kind == "balancer" else (SKB, EGRESS)
loaded = bpf(LOAD, struct.pack(
    "<IIQQIIQII16sII", of_type, len(program) // 8, ctypes.addressof(code), ctypes.addressof(licence),
    0, 0, 0, 0, 0, b"somebodys", 0, at))
cgroup = os.open(folder, os.O_RDONLY)
bpf(ATTACH, struct.pack("<IIII", cgroup, loaded, at, ALLOW_MULTI))
print("attached", flush=True)
sys.stdin.read()
DETACH = 9
bpf(DETACH, struct.pack("<IIII", cgroup, loaded, at, 0))
