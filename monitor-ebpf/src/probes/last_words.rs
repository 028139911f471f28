//! What is read of a victim before its memory goes: by the victim itself as its signal arrives, or by whoever shares its memory as the OOM killer
//! marks it. Then the kernel may take that memory before the victim runs again.

use killwatch_ebpf::wire::{
    Kind, LARGE_CHUNK, LargeChunk, LastWords, MAX_ARG_CHUNKS, MAX_ENV_CHUNKS, SMALL_CHUNK,
    SmallChunk, Text,
};

use crate::kernel::{
    cgroup,
    config::config,
    memory::{self, UserText},
    read::Address,
    ring::{self, Framed, Writer},
    task,
};

/// Puts what can be read of `victim` on the ring. Its memory must be that of the running task. `threads` must have been read before `delivered` was set: from then on the
/// others pass in silence, and leave.
#[inline(always)]
pub(super) fn send(ring: Writer, victim: Address, signal: u32, threads: u32) {
    let Some(mm) = task::mm(victim) else { return };
    let args = UserText::locate(mm, config!(layout.mm_arg_start), config!(layout.mm_arg_end));
    let env = UserText::locate(mm, config!(layout.mm_env_start), config!(layout.mm_env_end));
    let texts_skipped = ring::waiting() > u64::from(config!(texts_high_water));

    let Some(mut words) = ring.reserve::<LastWords>(Kind::LastWords) else {
        return;
    };
    task::describe(victim, &mut words.victim);
    words.signal = signal;
    words.threads = threads;
    words.memory = memory::describe(Some(mm));
    cgroup::tightest(task::css_set(victim).and_then(cgroup::memory_state), &mut words.tightest);
    words.args_len = args.len;
    words.env_len = env.len;
    words.texts_skipped = u32::from(texts_skipped);
    words._pad = 0;
    let owner = (words.victim.tgid, words.victim.start_ns);
    words.submit_from_a_crowd();
    if texts_skipped {
        return;
    }
    send_text::<SmallChunk, { SMALL_CHUNK }>(
        ring,
        Kind::SmallChunk,
        Text::Args,
        args,
        MAX_ARG_CHUNKS,
        owner,
    );
    if env.len <= SMALL_CHUNK as u64 {
        send_text::<SmallChunk, { SMALL_CHUNK }>(ring, Kind::SmallChunk, Text::Env, env, 1, owner);
    } else {
        send_text::<LargeChunk, { LARGE_CHUNK }>(
            ring,
            Kind::LargeChunk,
            Text::Env,
            env,
            MAX_ENV_CHUNKS,
            owner,
        );
    }
}

/// A record that carries `N` bytes of text.
trait Carries<const N: usize>: Framed {
    fn fill(&mut self, text: Text, offset: u32, owner: (u32, u64), from: UserText);
}

macro_rules! carries {
    ($($chunk:ident: $len:ident),+) => {
        $( impl Carries<{ $len }> for $chunk {
            #[inline(always)]
            fn fill(&mut self, text: Text, offset: u32, owner: (u32, u64), from: UserText) {
                (self.tgid, self.start_ns) = owner;
                self.text = text as u32;
                self.offset = offset;
                self.len = memory::copy_text(from, u64::from(offset), &mut self.data);
            }
        } )+
    };
}
carries!(SmallChunk: SMALL_CHUNK, LargeChunk: LARGE_CHUNK);

#[inline(always)]
fn send_text<C: Carries<N>, const N: usize>(
    ring: Writer,
    kind: Kind,
    text: Text,
    from: UserText,
    most: usize,
    owner: (u32, u64),
) {
    let mut offset = 0_u32;
    for _ in 0..most {
        if u64::from(offset) >= from.len {
            return;
        }
        let Some(mut chunk) = ring.reserve::<C>(kind) else { return };
        chunk.fill(text, offset, owner, from);
        chunk.submit_from_a_crowd();
        offset += N as u32;
    }
}
