//! Moments as people write and read them, in local time: `2 hours ago`, `yesterday 18:00`.

use anyhow::Result;
use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Unit, ZonedDateTime};

use crate::error::Failure;

/// The present, in the time zone of this machine; in UTC where none is known.
pub fn now() -> ZonedDateTime {
    Timestamp::now().to_zoned_datetime(TimeZone::system())
}

/// A time in few words: `today 14:18`, `yesterday 09:10`, `Mon 18:40`, else its date.
pub fn words(time: Timestamp, now: &ZonedDateTime) -> String {
    let time = time.to_zoned_datetime(now.time_zone().clone());
    let days = time.date().until((Unit::Day, now.date())).map_or(i32::MAX, |it| it.get_days());
    match days {
        0 => time.strftime("today %H:%M"),
        1 => time.strftime("yesterday %H:%M"),
        2..=6 => time.strftime("%a %H:%M"),
        _ => time.strftime("%F"),
    }
    .to_string()
}

/// The last instant that a text stands for: a minute without seconds lasts to its end, a day
/// without a time as well, so that what a list shows as `today 14:18` is found by that.
///
/// # Errors
///
/// The text is not a moment.
pub fn parse(text: &str, now: &ZonedDateTime) -> Result<Timestamp> {
    let text = text.trim();
    let found = text.parse().ok().or_else(|| ago(text, now)).or_else(|| civil(text, now));
    found.ok_or_else(|| {
        Failure::usage(format!("{text:?} is not a moment"))
            .hint("for example \"2 hours ago\", \"yesterday 18:00\", monday, 2026-03-15")
            .into()
    })
}

fn ago(text: &str, now: &ZonedDateTime) -> Option<Timestamp> {
    let span: Span = text.parse().ok().filter(|_| text.ends_with(" ago"))?;
    Some(now.checked_add(span).ok()?.timestamp())
}

/// A day, a time, or a day and a time.
fn civil(text: &str, now: &ZonedDateTime) -> Option<Timestamp> {
    let text = text.to_lowercase();
    let (day_text, time_text) = match text.rsplit_once([' ', 't']) {
        _ if !text.contains(':') => (text.as_str(), None),
        Some((day, time)) => (day.trim_end(), Some(time)),
        None => ("today", Some(text.as_str())),
    };
    let time = match time_text {
        Some(text) => end_of_minute(text)?,
        None => Time::MAX,
    };
    let zone = now.time_zone();
    let at = |day: Date| {
        // Where the clocks go back, the second of two moments that are shown alike.
        zone.to_ambiguous_timestamp(DateTime::from_parts(day, time)).later().ok()
    };
    let today = now.date();
    match day_text {
        "today" => at(today),
        "yesterday" => at(today.yesterday().ok()?),
        name => match weekday(name) {
            Some(weekday) => at(last(weekday, time, time_text.is_none(), now)?),
            None => at(name.parse().ok()?),
        },
    }
}

/// `18:40` is all of that minute.
fn end_of_minute(text: &str) -> Option<Time> {
    let is_time = text.bytes().all(|byte| byte.is_ascii_digit() || b":.".contains(&byte));
    let time: Time = text.parse().ok().filter(|_| is_time && text.contains(':'))?;
    match text.matches(':').count() {
        1 => Time::new(time.hour(), time.minute(), 59, 999_999_999).ok(),
        _ => Some(time),
    }
}

/// The last such day that has begun or, with a time, whose time has passed.
fn last(weekday: Weekday, time: Time, is_whole: bool, now: &ZonedDateTime) -> Option<Date> {
    let today = now.date();
    let is_today = today.weekday() == weekday && (is_whole || time <= now.time());
    if is_today { Some(today) } else { today.nth_weekday(-1, weekday).ok() }
}

fn weekday(name: &str) -> Option<Weekday> {
    let all = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let index = all.iter().position(|day| *day == name || day[..3] == *name)?;
    Weekday::from_monday_zero_offset(i8::try_from(index).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Wednesday in Tokyo.
    fn noon() -> ZonedDateTime {
        let zone = TimeZone::posix("JST-9").unwrap();
        "2026-03-18T03:00:30Z".parse::<Timestamp>().unwrap().to_zoned_datetime(zone)
    }

    fn parsed(text: &str) -> Option<String> {
        let moment = parse(text, &noon()).ok()?.to_zoned_datetime(noon().time_zone().clone());
        Some(moment.strftime("%F %T").to_string())
    }

    #[test]
    fn a_moment_is_what_people_write() {
        for (text, moment) in [
            ("2026-03-15T05:18:50.365Z", "2026-03-15 14:18:50"),
            ("2026-03-15T14:18:50+09:00", "2026-03-15 14:18:50"),
            ("2 hours ago", "2026-03-18 10:00:30"),
            ("1h 30m ago", "2026-03-18 10:30:30"),
            ("3 days ago", "2026-03-15 12:00:30"),
            ("today 09:30", "2026-03-18 09:30:59"),
            ("09:30", "2026-03-18 09:30:59"),
            ("yesterday 18:00:07", "2026-03-17 18:00:07"),
            ("Yesterday", "2026-03-17 23:59:59"),
            ("monday 18:40", "2026-03-16 18:40:59"),
            ("Mon", "2026-03-16 23:59:59"),
            ("wednesday 11:00", "2026-03-18 11:00:59"),
            ("wed 13:00", "2026-03-11 13:00:59"),
            ("wed", "2026-03-18 23:59:59"),
            ("2026-03-15", "2026-03-15 23:59:59"),
            ("2026-03-15 14:18", "2026-03-15 14:18:59"),
            ("2026-03-15T14:18", "2026-03-15 14:18:59"),
        ] {
            assert_eq!(parsed(text).as_deref(), Some(moment), "{text}");
        }
        for text in [
            "",
            "soon",
            "2 hours",
            "in 2 hours",
            "25:00",
            "yesterday 1800",
            "14",
            "2026-02-30",
            "moon 18:00",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn an_hour_that_comes_twice_ends_with_its_second_time() {
        let zone = TimeZone::posix("EST5EDT,M3.2.0,M11.1.0").unwrap();
        let now = "2026-11-01T12:00:00Z".parse::<Timestamp>().unwrap().to_zoned_datetime(zone);
        let second: Timestamp = "2026-11-01T06:30:20Z".parse().unwrap();
        assert_eq!(words(second, &now), "today 01:30");
        assert!(parse("today 01:30", &now).unwrap() >= second);
        // 02:30 does not exist on that day.
        let skipped = parse("2026-03-08 02:30", &now).unwrap();
        assert_eq!(skipped.to_string(), "2026-03-08T07:30:59.999999999Z");
    }

    #[test]
    fn what_is_shown_is_found_again() {
        for (time, shown) in [
            ("2026-03-18T02:59:59Z", "today 11:59"),
            ("2026-03-17T14:59:59Z", "yesterday 23:59"),
            ("2026-03-16T09:40:20Z", "Mon 18:40"),
            ("2026-03-12T09:40:20Z", "Thu 18:40"),
            ("2026-03-11T09:40:20Z", "2026-03-11"),
            ("2027-03-11T09:40:20Z", "2027-03-11"),
        ] {
            let time: Timestamp = time.parse().unwrap();
            assert_eq!(words(time, &noon()), shown);
            assert!(parse(shown, &noon()).unwrap() >= time, "{shown}");
        }
    }
}
