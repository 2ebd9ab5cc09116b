'use strict';
const list = document.getElementById('list');
if (list) {
  const articles = [...list.children], control = id => document.getElementById(id);
  const keys = ['set', 'verdict', 'kind', 'type'];
  function update() {
    const words = control('search').value.toLowerCase().split(' ').filter(Boolean);
    let count = 0;
    for (const article of articles) {
      const text = article.textContent.toLowerCase();
      const shown = keys.every(key => !control(key).value || article.dataset[key] === control(key).value)
        && words.every(word => text.includes(word));
      article.hidden = !shown;
      count += shown;
    }
    const order = control('sort').value, key = order.replace('-', ''), sign = order[0] === '-' ? -1 : 1;
    const sorted = key ? [...articles].sort((a, b) => sign * (a.dataset[key] - b.dataset[key])) : articles;
    list.append(...sorted);
    control('count').textContent = count + (count === 1 ? ' row' : ' rows');
  }
  document.forms[0].addEventListener('submit', event => event.preventDefault());
  for (const id of [...keys, 'sort', 'search']) control(id).addEventListener('input', update);
  document.addEventListener('keydown', event => {
    if (event.target.matches('input, select') || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === '/') {
      event.preventDefault();
      control('search').focus();
    } else if (event.key === 'j' || event.key === 'k') {
      const shown = [...list.children].filter(article => !article.hidden);
      const place = shown.indexOf(document.activeElement.closest('article'));
      const next = shown[event.key === 'j' ? place + 1 : Math.max(place - 1, 0)];
      if (next) { next.focus(); next.scrollIntoView({block: 'start'}); }
    }
  });
  update();
}
