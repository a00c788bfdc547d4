use std::iter;

use evenkeel_balance::Connectivity;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Paragraph, Sparkline},
};

use super::{
    super::{
        latency::show,
        record::{Face, SPANS},
    },
    shot::{ActShot, BackendShot, Shot},
};

/// The columns that fit in 80; what is wider shows the history beside them.
const TABLE_WIDTH: u16 = 79;

/// Lines for one backend: its numbers, and why it is in the state that it is in.
const ROW_HEIGHT: u16 = 2;

/// Draws a run: the script and how each act was taken, then what each face makes of each backend. 80 × 24 is enough.
pub(super) fn draw(frame: &mut Frame<'_>, shot: &Shot) {
    let face = Constraint::Length(1 + ROW_HEIGHT * 3);
    let gap = Constraint::Length(1);
    let [title, bar, _, acts, _, proxy, _, channel, footer, _] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        gap,
        Constraint::Length(4),
        gap,
        face,
        gap,
        face,
        Constraint::Length(1),
        Constraint::Fill(1),
    ])
    .areas(frame.area());
    frame.render_widget(title_line(shot, title.width), title);
    frame.render_widget(progress(shot, bar.width), bar);
    frame.render_widget(
        Paragraph::new(iter::once(act_header()).chain(shot.acts.iter().map(act_line)).collect::<Vec<_>>()),
        acts,
    );
    for (face, area) in [(Face::Proxy, proxy), (Face::Channel, channel)] {
        draw_face(frame, area, face, shot);
    }
    frame.render_widget(footer_line(shot, footer.width), footer);
}

fn title_line(shot: &Shot, width: u16) -> Line<'static> {
    let plan = &shot.plan;
    let settings = format!("   {} · {} calls/s · seed {}", plan.policy, plan.rps, plan.seed);
    let clock = if shot.now < plan.duration {
        format!("{:.1} of {} s", shot.now.as_secs_f64(), plan.duration.as_secs_f64())
    } else {
        "waiting for the last answers".to_owned()
    };
    spread(width, vec![" evenkeel demo".bold(), settings.into()], clock)
}

/// Text on the left, and text on the right edge.
fn spread(width: u16, mut left: Vec<Span<'static>>, right: String) -> Line<'static> {
    let used = left.iter().map(Span::width).sum::<usize>() + right.chars().count() + 1;
    left.push(" ".repeat(usize::from(width).saturating_sub(used)).into());
    left.push(right.into());
    Line::from(left)
}

/// The run from left to right; the spans in which a backend is at fault stand out.
fn progress(shot: &Shot, width: u16) -> Line<'static> {
    let cells = width.saturating_sub(2);
    let cell = |i: u16| {
        let at = shot.plan.duration.mul_f64(f64::from(i) / f64::from(cells.max(1)));
        let faulty = shot.acts.iter().any(|shown| (shown.act.fault_at..shown.act.repair_at).contains(&at));
        let style = if faulty { Style::new().yellow() } else { Style::new() };
        if at <= shot.now { Span::styled("━", style) } else { Span::styled("─", style.dim()) }
    };
    iter::once(" ".into()).chain((0..cells).map(cell)).collect()
}

fn act_header() -> Line<'static> {
    format!(" {:<33}{:>11}{:>10}{:>13}{:>10}", "FAULT", "out: proxy", "channel", "back: proxy", "channel").bold().into()
}

fn act_line(shown: &ActShot) -> Line<'static> {
    let (mark, style) = match (shown.performed.fault, shown.is_over()) {
        (None, _) => (Span::from("·").dim(), Style::new().dim()),
        (Some(_), false) => (Span::from("▶").yellow(), Style::new().bold()),
        (Some(_), true) => (Span::from("✓").green(), Style::new()),
    };
    let [out_proxy, out_channel] = shown.healings.map(|healing| show(healing.detect));
    let [back_proxy, back_channel] = shown.healings.map(|healing| show(healing.back));
    let title = shown.act.title();
    let rest = format!(" {title:<31}{out_proxy:>11}{out_channel:>10}{back_proxy:>13}{back_channel:>10}");
    Line::from(vec![" ".into(), mark, Span::styled(rest, style)])
}

fn draw_face(frame: &mut Frame<'_>, area: Rect, face: Face, shot: &Shot) {
    let rows = &shot.backends[face as usize];
    let has_history = area.width > TABLE_WIDTH + SPANS;
    let table_width = if has_history { TABLE_WIDTH } else { area.width };
    let lines =
        iter::once(face_header(face, has_history)).chain(rows.iter().flat_map(|row| row_lines(row, table_width)));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
    if has_history {
        for (row, y) in rows.iter().zip((area.y + 1..).step_by(ROW_HEIGHT.into())) {
            let place = Rect::new(area.x + TABLE_WIDTH + 1, y, SPANS, ROW_HEIGHT);
            frame.render_widget(history(row, rows), place.intersection(frame.area()));
        }
    }
}

fn face_header(face: Face, has_history: bool) -> Line<'static> {
    let name = face.name().to_uppercase();
    let columns =
        format!(" {name:<19}{:<18}{:>8}{:>10}{:>9}{:>9}{:>5}", "state", "calls/s", "in flight", "p50", "p99", "outs");
    format!("{columns}{}", if has_history { " calls/s over the run" } else { "" }).bold().into()
}

fn row_lines(row: &BackendShot, width: u16) -> [Line<'static>; 2] {
    let BackendShot { name, address, calls_per_second, in_flight, outages, .. } = row;
    let state = Span::styled(format!("{:<18}", row.state.map_or("–", Connectivity::name)), colour(row.state));
    let [p50, p99] = [row.latency.p50, row.latency.p99].map(show);
    let numbers = format!("{calls_per_second:>8.0}{in_flight:>10}{p50:>9}{p99:>9}{outages:>5}");
    let indent = " ".repeat(20);
    let reason: String = row.reason.chars().take(usize::from(width).saturating_sub(indent.len() + 1)).collect();
    [
        Line::from(vec![format!(" {name}  {address:<16}").into(), state, numbers.into()]),
        Line::from(vec![indent.into(), reason.dim()]),
    ]
}

fn colour(state: Option<Connectivity>) -> Style {
    Style::new().fg(match state {
        Some(Connectivity::Ready) => Color::Green,
        Some(Connectivity::TransientFailure) => Color::Red,
        Some(Connectivity::Idle | Connectivity::Connecting) => Color::Yellow,
        None => Color::Reset,
    })
}

/// How a backend's load went over the run, on the same scale as that of its peers.
fn history<'a>(row: &'a BackendShot, peers: &[BackendShot]) -> Sparkline<'a> {
    let most = peers.iter().flat_map(|peer| peer.history).max().unwrap_or(0);
    Sparkline::default().data(row.history.map(u64::from)).max(most.max(1).into()).style(Style::new().cyan())
}

fn footer_line(shot: &Shot, width: u16) -> Line<'static> {
    let failed = format!("{} failed", shot.failed);
    let failed = if shot.failed == 0 { failed.green() } else { failed.red().bold() };
    spread(width, vec![format!(" {} calls, ", shot.calls).into(), failed], "q ends".to_owned())
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc, time::Duration};

    use evenkeel_balance::Time;
    use ratatui::{Terminal, backend::TestBackend};

    use super::{
        super::super::{
            record::{Call, Performed, Plan, Record},
            rotation::Sight,
            script::script,
        },
        *,
    };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn record() -> Record {
        let plan = Plan { duration: at(20_000), rps: 1_000, policy: "least_request".into(), seed: 7 };
        let addresses = (40_001..=40_003).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let mut record = Record::new(plan, script(at(20_000)), addresses, vec![1, 2, 3]);
        record.performed[0] = Performed { fault: Some(at(2_000)), repair: None };
        for (moment, state) in [(0, Connectivity::Ready), (2_003, Connectivity::TransientFailure)] {
            let sight =
                Sight { state, since: Time::from_nanos(moment), reason: "refused".into(), load: Arc::default() };
            record.rotation_mut(Face::Proxy).see(at(moment), 0, sight);
        }
        let outcome = Ok(1);
        record.add(Call { face: Face::Proxy, start: at(2_900), end: at(2_904), outcome });
        record
    }

    fn drawn(width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let shot = Shot::take(&record(), at(3_000));
        terminal.draw(|frame| draw(frame, &shot)).unwrap();
        let cells = terminal.backend().buffer().content();
        let rows = cells.chunks(usize::from(width));
        rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned())
            .collect()
    }

    #[test]
    fn a_terminal_of_80_by_24_shows_everything() {
        let rows = drawn(80, 24);
        assert_eq!(
            rows[0].trim_start(),
            "evenkeel demo   least_request · 1000 calls/s · seed 7              3.0 of 20 s"
        );
        let shows = |text: &str| assert!(rows.iter().any(|row| row.contains(text)), "{text:?} in {rows:#?}");
        shows("▶ a: SIGKILL, then started again      3.0 ms         –            –         –");
        shows("a  127.0.0.1:40001 TRANSIENT_FAILURE        0         0        –        –    1");
        shows("b  127.0.0.1:40002 –                        1         0   4.0 ms   4.0 ms    0");
        shows("refused");
        assert_eq!(rows[23].split_whitespace().collect::<Vec<_>>(), ["1", "calls,", "0", "failed", "q", "ends"]);
    }

    #[test]
    fn a_wide_terminal_shows_the_history_too() {
        assert!(drawn(110, 30).iter().any(|row| row.ends_with("calls/s over the run")));
        assert!(!drawn(109, 30).iter().any(|row| row.ends_with("calls/s over the run")));
    }

    #[test]
    fn a_tiny_terminal_is_no_reason_to_panic() {
        for (width, height) in [(1, 1), (20, 3), (110, 9)] {
            assert_eq!(drawn(width, height).len(), usize::from(height));
        }
    }
}
