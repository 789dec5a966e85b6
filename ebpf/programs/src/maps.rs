use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage};
use aya_ebpf::macros::btf_map;
use lockgate_abi::{Flow, Key4, Key6, Listener, Origin, Process};

#[btf_map]
pub static PROTECTED4: LpmTrie<Key4, u8, 65536> = LpmTrie::new();
#[btf_map]
pub static PROTECTED6: LpmTrie<Key6, u8, 65536> = LpmTrie::new();
#[btf_map]
pub static LEASE: Array<u64, 1> = Array::new();
#[btf_map]
pub static LISTENERS: HashMap<u64, Listener, 4096> = HashMap::new();
#[btf_map]
pub static LISTENER_PORTS: HashMap<u32, u8, 8192> = HashMap::new();
#[btf_map]
pub static EXEMPT: SkStorage<u8> = SkStorage::new();
#[btf_map]
pub static ORIGINS: SkStorage<Origin> = SkStorage::new();
#[btf_map]
pub static FLOWS: LruHashMap<Flow, Origin, 65536> = LruHashMap::new();
#[btf_map]
pub static PROCESSES: LruHashMap<u32, Process, 65536> = LruHashMap::new();
#[btf_map]
pub static REFUSALS: RingBuf<[u8; 48], 262144> = RingBuf::new();
#[btf_map]
pub static EXECS: RingBuf<[u8; 24], 262144> = RingBuf::new();
#[btf_map]
pub static LOST: PerCpuArray<u64, 2> = PerCpuArray::new();
