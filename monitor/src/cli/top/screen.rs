//! The terminal: draws when something is new, reads keys, and leaves it as it was, also in a panic.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::state::{Key, News, State};
use super::view;

/// Longest wait for a key before it is looked for news.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Gives the terminal back, whichever way it ends.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows it until a key or a signal ends it.
///
/// # Errors
/// If the terminal fails.
pub(super) fn run(mut state: State, news: &Receiver<News>) -> io::Result<()> {
    // Before the terminal is taken: half of a start is undone too.
    let restored = Restored;
    let mut terminal = ratatui::try_init()?;
    let tty = File::open("/dev/tty")?;
    let mut is_new = true;
    loop {
        loop {
            match news.try_recv() {
                Ok(heard) => state.take(heard),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            is_new = true;
        }
        if is_new {
            let mut shown = 0;
            terminal.draw(|frame| shown = view::draw(frame, &state))?;
            state.shown_from(shown);
        }
        if !is_there(&tty)? {
            return Ok(());
        }
        is_new = event::poll(Duration::ZERO)?;
        if is_new
            && let Event::Key(pressed) = event::read()?
            && let Some(key) = meaning(pressed)
            && !state.on(key)
        {
            break;
        }
    }
    drop(restored);
    Ok(())
}

/// Waits for a key, or a tick, and says whether the terminal is still there: of one that hung up crossterm would read the end again and again.
fn is_there(tty: &File) -> io::Result<bool> {
    let mut waited = [PollFd::new(tty, PollFlags::IN)];
    match poll(&mut waited, Some(&TICK)) {
        // A signal: of the terminal's size, or one that ends the program.
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let [waited] = waited;
    Ok(!waited.revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL))
}

/// What a key means here.
pub(super) fn meaning(pressed: KeyEvent) -> Option<Key> {
    if pressed.kind == KeyEventKind::Release {
        return None;
    }
    if pressed.modifiers.contains(KeyModifiers::CONTROL) {
        return match pressed.code {
            KeyCode::Char('c') => Some(Key::End),
            _ => None,
        };
    }
    Some(match pressed.code {
        KeyCode::Char('q') => Key::Quit,
        KeyCode::Esc => Key::Back,
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown | KeyCode::Char(' ') => Key::PageDown,
        KeyCode::Home | KeyCode::Char('g') => Key::First,
        KeyCode::End | KeyCode::Char('G') => Key::Last,
        KeyCode::Tab | KeyCode::BackTab => Key::Other,
        KeyCode::Enter => Key::Open,
        KeyCode::Char('s') => Key::Sort,
        KeyCode::Char('?') => Key::Help,
        _ => return None,
    })
}
