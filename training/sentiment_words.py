"""Ordinary words and phrases of praise and blame, and the things that people praise and blame. Written for this project."""

from __future__ import annotations

#: What can be judged, with the words that only fit there.
THINGS = """movie film book novel story song album concert show play game toy puzzle phone laptop tablet camera screen
keyboard printer charger battery headset speaker radio clock watch lamp chair table sofa bed pillow mattress blanket
carpet coat jacket shirt dress skirt sweater hat scarf shoe bag backpack suitcase umbrella bicycle car bus train taxi
flight airport hotel hostel room apartment house kitchen bathroom garden park beach lake museum zoo library school
course lesson lecture teacher doctor nurse dentist hospital bank shop store market bakery restaurant cafe pizza burger
salad soup sandwich breakfast lunch dinner cake pie bread cheese coffee tea juice milk wine rice pasta chicken fish
waiter driver neighbor boss job meeting office party wedding picnic holiday trip journey tour weekend morning evening
day week weather football match team coach player race website app update password service delivery package order price
ticket seat view street city village river knife pan kettle oven fridge heater vacuum tent boat map guide recipe haircut
gym pool speech exam homework letter email present gift photo painting actor singer band plot ending music voice
story cat dog puppy kitten horse bird""".split()

GOOD_ADJECTIVES = """good great wonderful lovely excellent amazing fantastic superb perfect brilliant beautiful delightful
pleasant nice fine charming terrific marvelous awesome outstanding impressive splendid magnificent enjoyable fun funny
entertaining exciting interesting fascinating inspiring moving touching clever smart wise thoughtful kind friendly polite
helpful generous patient gentle caring honest warm cozy comfortable clean tidy neat fresh tasty delicious yummy juicy
crisp rich creamy sweet healthy strong sturdy solid reliable durable safe smooth quick fast easy simple handy useful
practical clear bright quiet calm peaceful relaxing cheerful happy joyful elegant stylish pretty cute gorgeous stunning
graceful lively colorful creative original fair cheap affordable valuable worthwhile rewarding successful skilled
professional efficient spotless punctual memorable unforgettable remarkable flawless refreshing soft spacious sunny
welcoming satisfying heartwarming hilarious sharp well-made tender light superior first-class top-notch""".split()
BAD_ADJECTIVES = """bad terrible horrible awful poor dreadful disgusting nasty unpleasant disappointing boring dull dreary
tedious slow weak cheap ugly dirty filthy smelly noisy loud cold stale sour bitter bland tasteless greasy salty soggy
burnt raw rotten rude impolite unfriendly unhelpful mean cruel selfish lazy careless dishonest greedy angry grumpy
arrogant useless worthless broken faulty defective damaged fragile flimsy unreliable dangerous unsafe confusing
complicated difficult annoying irritating frustrating stressful painful sad depressing gloomy miserable tragic scary
cramped crowded uncomfortable hard stiff rough expensive overpriced unfair wrong false fake silly stupid pointless
meaningless predictable shallow clumsy messy sloppy late delayed lost lonely tired sick ill weird hopeless ridiculous
mediocre inferior outdated rusty leaky moldy wet dark tiny shabby worn torn ruined crooked unacceptable unbearable
shameful lousy pathetic embarrassing third-rate lifeless empty""".split()
GOOD_ADVERBS = "really so very truly absolutely quite just simply wonderfully remarkably always".split()
BAD_ADVERBS = "really so very truly absolutely quite just simply terribly horribly always".split()

#: Something good or bad happened. `{t}` is a thing.
GOOD_EVENTS = """I love this {t}.;I loved the {t}.;We all love our {t}.;I like this {t} a lot.;I enjoyed every minute of it.;
I enjoyed the {t} from start to finish.;My family enjoyed the {t}.;Everyone liked the {t}.;Everybody was happy with it.;
The {t} made me smile.;The {t} made me laugh out loud.;The {t} cheered me up.;I could not stop smiling.;
I laughed until I cried.;This {t} works perfectly.;The {t} works like new.;It works better than I hoped.;
It does exactly what it should.;The {t} exceeded my expectations.;I am happy with the {t}.;I am so pleased with it.;
I am very satisfied with my {t}.;I am glad that I bought this {t}.;I would buy it again.;I will come back soon.;
I would recommend this {t} to anyone.;I recommend it highly.;Best {t} ever!;The best {t} in town.;
This is the best {t} I have ever had.;My favorite {t} of all.;Worth every penny.;It was worth the money.;
The {t} was worth the wait.;Five stars for this {t}.;Ten out of ten.;Thank you for the {t}!;Thanks, you made my day.;
What a great day!;My day was wonderful.;I had a great time.;We had so much fun.;I feel great today.;I feel much better.;
I am in a good mood.;I am so happy right now.;I am proud of my son.;I am proud of our team.;Our team won the game.;
We won the match.;She won first prize.;He got the best grade in the class.;I passed my exam.;My daughter passed the test.;
I got a new job today.;I got a raise.;The doctor said I am healthy.;My father is well again.;The baby is healthy.;
My friend came to visit me.;My best friend called me.;They gave us a free dessert.;He gave me flowers.;
She helped me with everything.;He helped me carry my bags.;The staff were friendly.;The staff helped us right away.;
The waiter smiled and was very kind.;The driver was polite.;The doctor listened to me.;The teacher is patient with everyone.;
My boss praised my work.;They solved my problem in minutes.;They answered all my questions.;The delivery was fast.;
It arrived early.;It came on time.;The package arrived in perfect condition.;The price was fair.;It was cheap and good.;
The food was delicious.;The food was hot and tasty.;The cake was sweet and soft.;The coffee smells wonderful.;
The soup was full of flavor.;The bread was still warm.;The room was clean.;The bed was soft and comfortable.;
The view was beautiful.;The water was warm and clear.;The sun is shining and I feel good.;The weather was perfect.;
The flowers are beautiful.;The garden is full of color.;The music was beautiful.;She sings like an angel.;
He plays the piano beautifully.;The children had a lovely time.;The kids were happy all day.;The kids love it.;
My dog loves this {t}.;The puppy is adorable.;The kitten is so sweet.;The actors were brilliant.;
The story was exciting to the end.;The ending was perfect.;I could not put the {t} down.;I learned a lot.;
I learned so much from this {t}.;The {t} was easy to use.;It was easy to put together.;The battery lasts all day.;
The picture is sharp.;The sound is clear.;It fits perfectly.;These shoes are comfortable.;The jacket keeps me warm.;
It is light and strong.;It still works after ten years.;He fixed the {t} in an hour.;They repaired my {t} for free.;
The repair was quick and cheap.;I found my lost keys.;I finally found what I was looking for.;I slept like a baby.;
I woke up rested.;I had a wonderful dream.;Our trip was a dream.;The holiday was a success.;The party was a success.;
The wedding was beautiful.;The surprise was perfect.;We danced all night.;We laughed all evening.;The crowd cheered.;
Nothing could be better.;I have no complaints.;Not bad at all!;You will not regret it.;I could not be happier.;
It never lets me down.;I never had a problem with it.;A treat for the whole family.;A pleasure to read.;A joy to watch.;
A real treasure.;A true masterpiece.;What a lovely surprise!;What a beautiful {t}!;What a nice {t}!;Well done!;
Great job, everyone!;Keep up the good work.;I admire her courage.;I trust this shop.;I respect my teacher.;
I was moved by the {t}.;It took my worries away.;She is a wonderful cook.;He is a good friend.;They are kind people.;
Their {t} is the pride of the town.;My mother smiled when she saw the {t}.;I can hardly wait to go back.;
I look forward to every {t}.;The new {t} is a big improvement.;This {t} saved me a lot of time.;This {t} saved my day.;
The problem is solved at last.;Good news, the {t} is ready.;It looks great on me.;It looks even better in real life.;
The colors are bright and pretty.;The {t} is a bargain.;Peaceful and quiet, just what we needed.;Safe and well.;
We felt welcome at once.;We felt at home.;They treated us like family.;Everything went smoothly.;Everything was perfect.;
Success at last!;My wish came true.;Lucky me!;I am thankful for my friends.;I am grateful for your help.""".replace(
    "\n", ""
).split(";")
BAD_EVENTS = """I hate this {t}.;I hated the {t}.;We all hate our {t}.;I do not like this {t} at all.;I did not enjoy it.;
I was bored from start to finish.;My family hated the {t}.;Nobody liked the {t}.;Nobody was happy with it.;
The {t} made me cry.;The {t} made me angry.;The {t} gave me a headache.;I could not stop crying.;
I cried all night.;This {t} does not work.;The {t} stopped working after a week.;It never worked.;
It does nothing it should.;The {t} let me down.;I am unhappy with the {t}.;I am so disappointed.;
I am not satisfied with my {t}.;I am sorry that I bought this {t}.;I would not buy it again.;I will never come back.;
I would not recommend this {t} to anyone.;Stay away from it.;Worst {t} ever!;The worst {t} in town.;
This is the worst {t} I have ever had.;My least favorite {t}.;A waste of money.;It was not worth the money.;
The {t} was a waste of time.;One star for this {t}.;Zero out of ten.;I want my money back.;You ruined my day.;
What a terrible day!;My day was awful.;I had a horrible time.;We had no fun at all.;I feel terrible today.;I feel sick.;
I am in a bad mood.;I am so sad right now.;I am ashamed of myself.;I am ashamed of our team.;Our team lost the game.;
We lost the match.;She came last.;He got the worst grade in the class.;I failed my exam.;My daughter failed the test.;
I lost my job today.;I got fired.;The doctor said I am ill.;My father is in the hospital.;The baby cried all night.;
My friend is angry with me.;My best friend left me.;They charged us twice.;He yelled at me.;
She refused to help me.;He pushed me and walked away.;The staff were unfriendly.;The staff ignored us.;
The waiter was slow and impolite.;The driver was reckless.;The doctor did not listen to me.;The teacher is unfair to everyone.;
My boss complained about my work.;They never solved my problem.;They ignored all my questions.;The delivery was late.;
It arrived broken.;It came three weeks late.;The package arrived damaged.;The price was far too high.;It was expensive and bad.;
The food was disgusting.;The food was cold and greasy.;The cake was dry and hard.;The coffee tastes like dirt.;
The soup was too salty.;The bread was old and hard.;The room was dirty.;The bed was hard and uncomfortable.;
The view was a brick wall.;The water was cold and muddy.;It rained all week and I was miserable.;The weather was awful.;
The flowers are dead.;The garden is full of weeds.;The music was too loud.;She sings out of tune.;
He plays the piano badly.;The children were bored.;The kids fought all day.;The kids hate it.;
My dog is sick.;The puppy chewed my shoes.;The cat scratched me.;The actors were bad.;
The story made no sense.;The ending was stupid.;I could not finish the {t}.;I learned nothing.;
I learned nothing from this {t}.;The {t} was hard to use.;It was impossible to put together.;The battery dies in an hour.;
I hate it when my battery is empty.;The picture is blurry.;The sound is terrible.;It does not fit.;These shoes hurt my feet.;
The jacket fell apart.;It is heavy and weak.;It broke after two days.;He broke the {t} in an hour.;They refused to repair my {t}.;
The repair was slow and expensive.;I lost my keys.;I cannot find what I was looking for.;I could not sleep.;
I woke up with a headache.;I had a nightmare.;Our trip was a nightmare.;The holiday was a disaster.;The party was a failure.;
The wedding was a disaster.;The surprise was ruined.;We waited all night.;We argued all evening.;The crowd booed.;
Nothing could be worse.;I have many complaints.;Not good at all!;You will regret it.;I could not be more upset.;
It always lets me down.;I have had nothing but problems with it.;A disappointment for the whole family.;A pain to read.;
Painful to watch.;A real mess.;A total failure.;What a nasty surprise!;What an ugly {t}!;What a bad {t}!;Shame on you!;
Bad job, everyone!;I give up.;I despise his lies.;I do not trust this shop.;I fear my teacher.;
I was annoyed by the {t}.;I worry about it every night.;She is a terrible cook.;He is a false friend.;They are cruel people.;
Their {t} is the shame of the town.;My mother cried when she saw the {t}.;I never want to go back.;
I dread every {t}.;The new {t} is a step back.;This {t} cost me a lot of time.;This {t} spoiled my day.;
The problem is getting worse.;Bad news, the {t} is broken.;It looks awful on me.;It looks even worse in real life.;
The colors are faded and dull.;The {t} is a rip-off.;Noisy and crowded, just what we feared.;Hurt and alone.;
We felt unwelcome at once.;We wanted to leave.;They treated us like dirt.;Everything went wrong.;Everything was a mess.;
Failure again!;My hopes were crushed.;Poor me!;I am angry about the noise.;I am tired of your excuses.;
Someone stole my bike.;Somebody stole my {t}.;The bus never came.;The train was two hours late.;They cancelled the {t}.;
The {t} was cancelled at the last minute.;We missed our train.;The engine died on the road.;My car broke down.;
The heater is broken and we are freezing.;The lights went out.;The {t} smells bad.;There was a hair in my food.;
There were bugs in the bed.;The floor was sticky.;The water dripped all night.;The toilet was blocked.;The walls are thin.;
The {t} crashed twice.;The {t} froze again.;The {t} is full of errors.;They lied about the price.;He cheated us.;
She forgot all about me.;Nobody came to my party.;Nobody helped us.;Nobody cares.;No one answered.;No one apologized.;
He shouted at the children.;My grandfather died last week.;My cat died yesterday.;I miss her so much.;I am lonely.;
I got hurt.;I burned my hand.;My tooth hurts.;My back hurts after sitting in it.;I am sick of this {t}.""".replace(
    "\n", ""
).split(";")

#: Sentence shapes; {a} {b} adjectives, {t} {u} things, {v} an adverb, all of one label.
SHAPES = """The {t} was {a}.;The {t} was {v} {a}.;The {t} is {a} and {b}.;The {t} was {a} and the {u} was {b}.;
This {t} is {v} {a}.;This {t} looks {a}.;My {t} is {a}.;Our {t} was {a} and {b}.;What {aa} {t}!;Such {aa} {t}!;
I think this {t} is {a}.;I find the {t} {a}.;The {t} here is {a}.;The {u} of the {t} was {a}.;It was {aa} {t}.;
{Aa} {t}.;{A} and {b}.;{A}, {b} and {c}.;The {t} seemed {a} to me.;Everyone said that the {t} was {a}.;
The {t} turned out to be {a}.;Her {t} is {a}.;His {t} was {v} {a} today.;The new {t} is {a}.;
My {t} has been {v} {a}!;My week has been {a}.;Yesterday was {a}.;This new {t} was so {a}.;That {t} was so {a}!;
The {t} we saw was {a}.;It is {a}.;It was {v} {a}.;They were {a} and {b}.;She was {a} to us.;He is {aa} man.;
The people there were {a}.;Our {u} was {v} {a} this year.;The whole {t} felt {a}.;{Aa}, {b} {t}.""".replace("\n", "").split(";")

#: Two halves, the first of one label, the second too.
JOINS = ["{x} and {y}", "{X}, {y}", "{X} and {y}"]

TOPICS = """my sister;my brother;my mother;my father;my grandmother;our neighbor;my friend;the teacher;the children;
our class;the boss;the nurse;the doctor;the driver;the cook;the waiter;my uncle;the whole family""".replace("\n", "").split(";")
GOOD_VERBS = """smiled all day;laughed with joy;thanked us warmly;was very kind;was so helpful;was proud of me;
loved the {t};enjoyed the {t};praised the {t};was happy about the {t};recommended the {t};got good news;won a prize;
gave me a present;made us feel welcome;fixed the {t};cleaned the {t};cooked a delicious meal;sang beautifully;
is well again;found a better job;got well;helped an old man;shared the {t} with us;did a great job""".replace("\n", "").split(";")
BAD_VERBS = """cried all day;shouted with anger;insulted us;was very mean;was no help;was ashamed of me;
hated the {t};disliked the {t};complained about the {t};was upset about the {t};warned us about the {t};got bad news;
lost everything;stole my {t};made us feel stupid;broke the {t};ruined the {t};burned the dinner;sang horribly;
is ill again;lost the job;got sick;cheated an old man;lied to us about the {t};did a poor job;hurt my feelings;
was late again;forgot about us""".replace("\n", "").split(";")
