//! `signal:signal_deliver (sig, info, action)`: runs as the victim, its memory still mapped. The last moment at which its environment, command
//! line and memory can be read.
//!
//! Every thread of a process passes here, also when a sibling merely called `exit_group` or `exec`; so it counts only for a process
//! to which `signal_generate` saw a fatal signal, and only once.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use killwatch_ebpf::wire::{
    Kind, LargeChunk, LastWords, MAX_ARG_CHUNKS, MAX_ENV_CHUNKS, SmallChunk, Text,
};

use super::signals::{SIGKILL, may_end};
use crate::{
    kernel::{
        cgroup,
        config::config,
        map,
        memory::{self, UserText},
        ring::{self, Framed, Program},
        task,
    },
    maps::FATAL,
};

#[btf_tracepoint(function = "signal_deliver")]
pub(crate) fn signal_deliver(ctx: BtfTracePointContext) -> i32 {
    let signal = ctx.arg::<u64>(0) as u32;
    if may_end(signal) {
        speak(signal);
    }
    0
}

#[inline(always)]
fn speak(signal: u32) {
    let (tgid, _) = task::current_ids();
    let Some(sent) = map::change(&FATAL, &tgid) else { return };
    // Whatever ends a whole process without a core dump arrives at its threads as SIGKILL (complete_signal, kernel/signal.c).
    if (sent.signal != signal && signal != SIGKILL) || sent.delivered != 0 {
        return;
    }
    let victim = task::current();
    if sent.target_start_ns != task::start_ns(victim) {
        return;
    }
    sent.delivered = 1;
    let Some(mm) = task::mm(victim) else { return };
    let args = UserText::locate(mm, config!(layout.mm_arg_start), config!(layout.mm_arg_end));
    let env = UserText::locate(mm, config!(layout.mm_env_start), config!(layout.mm_env_end));
    let texts_skipped = ring::waiting() > u64::from(config!(texts_high_water));

    let Some(mut words) = ring::reserve::<LastWords>(Program::SignalDeliver, Kind::LastWords)
    else {
        return;
    };
    task::describe(victim, &mut words.victim);
    words.signal = sent.signal;
    words.threads = task::threads(victim);
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
    send::<SmallChunk, { killwatch_ebpf::wire::SMALL_CHUNK }>(
        Kind::SmallChunk,
        Text::Args,
        args,
        MAX_ARG_CHUNKS,
        owner,
    );
    if env.len <= killwatch_ebpf::wire::SMALL_CHUNK as u64 {
        send::<SmallChunk, { killwatch_ebpf::wire::SMALL_CHUNK }>(
            Kind::SmallChunk,
            Text::Env,
            env,
            1,
            owner,
        );
    } else {
        send::<LargeChunk, { killwatch_ebpf::wire::LARGE_CHUNK }>(
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
        $( impl Carries<{ killwatch_ebpf::wire::$len }> for $chunk {
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
fn send<C: Carries<N>, const N: usize>(
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
        let Some(mut chunk) = ring::reserve::<C>(Program::SignalDeliver, kind) else { return };
        chunk.fill(text, offset, owner, from);
        chunk.submit_from_a_crowd();
        offset += N as u32;
    }
}
