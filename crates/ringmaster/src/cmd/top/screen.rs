//! A terminal taken over: another screen, keys without Enter, and everything given back at the end.

use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::view::Size;

/// The other screen without a cursor, and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// The end.
    Quit,
    /// Nothing.
    Other,
}

/// The terminal, until it is dropped.
pub(super) struct Screen {
    /// As it was; none where keys cannot be read.
    before: Option<Termios>,
    keys: mpsc::Receiver<u8>,
    interrupt: Signal,
    terminate: Signal,
}

impl Screen {
    /// Takes it.
    pub(super) fn take() -> io::Result<Screen> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut quiet = before.clone();
            // Signals stay: Ctrl-C ends this as it ends everything.
            quiet.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            tcsetattr(io::stdin(), OptionalActions::Now, &quiet)?;
        }
        let (sender, keys) = mpsc::channel(16);
        // A read of a terminal cannot be taken back, so that it has a thread of its own that ends with the program.
        std::thread::spawn(move || {
            for byte in io::stdin().lock().bytes().map_while(Result::ok) {
                if sender.blocking_send(byte).is_err() {
                    return;
                }
            }
        });
        let screen = Screen { before, keys, interrupt, terminate };
        write(ENTER)?;
        Ok(screen)
    }

    /// How much fits.
    pub(super) fn size(&self) -> Size {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 => {
                Size { width: usize::from(size.ws_col), height: Some(usize::from(size.ws_row)) }
            }
            _ => Size::PAPER,
        }
    }

    /// Shows these lines and nothing else.
    pub(super) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        // Written over, and not erased first: that would flicker.
        let mut text = String::from("\x1b[H");
        for (index, line) in lines.iter().enumerate() {
            text.push_str(if index > 0 { "\r\n" } else { "" });
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        write(&text)
    }

    /// The next key, or a signal to end. Cancel-safe.
    pub(super) async fn key(&mut self) -> Key {
        tokio::select! {
            _ = self.interrupt.recv() => Key::Quit,
            _ = self.terminate.recv() => Key::Quit,
            key = self.keys.recv() => match key {
                Some(b'q' | b'Q') => Key::Quit,
                Some(_) => Key::Other,
                // Standard input has ended: signals alone are left.
                None => std::future::pending().await,
            },
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to tell of a terminal that has gone.
        drop(write(LEAVE));
        if let Some(before) = &self.before {
            tcsetattr(io::stdin(), OptionalActions::Now, before).ok();
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
